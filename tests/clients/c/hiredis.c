// hiredis does what session back ends do.
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what, const char *said) {
    fprintf(stderr, "%s: %s\n", what, said ? said : "nothing");
    exit(1);
}

static redisContext *connect_to(void) {
    redisContext *context = redisConnect(getenv("REDIS_HOST"), atoi(getenv("REDIS_PORT")));
    if (context == NULL || context->err) fail("connect", context ? context->errstr : NULL);
    return context;
}

// The reply as text must be what is expected; NULL is nil.
static void same(const char *what, redisReply *reply, int type, const char *expected) {
    char number[32];
    const char *text = reply == NULL ? NULL : reply->str;
    if (reply != NULL && reply->type == REDIS_REPLY_INTEGER) {
        snprintf(number, sizeof number, "%lld", reply->integer);
        text = number;
    }
    int equal = expected == NULL ? text == NULL : text != NULL && strncmp(text, expected, strlen(expected)) == 0;
    if (reply == NULL || reply->type != type || !equal) fail(what, text);
    freeReplyObject(reply);
}

int main(void) {
    const char *password = getenv("REDIS_PASSWORD");
    redisContext *context = connect_to();
    same("no password", redisCommand(context, "PING"), REDIS_REPLY_ERROR, "NOAUTH Authentication required.");
    same("wrong password", redisCommand(context, "AUTH %s", "no"), REDIS_REPLY_ERROR, "WRONGPASS");
    same("password", redisCommand(context, "AUTH %s", password), REDIS_REPLY_STATUS, "OK");
    same("ping", redisCommand(context, "PING"), REDIS_REPLY_STATUS, "PONG");

    same("select", redisCommand(context, "SELECT 3"), REDIS_REPLY_STATUS, "OK");
    same("setname", redisCommand(context, "CLIENT SETNAME named"), REDIS_REPLY_STATUS, "OK");
    same("getname", redisCommand(context, "CLIENT GETNAME"), REDIS_REPLY_STRING, "named");

    same("missing", redisCommand(context, "GET %s", "missing"), REDIS_REPLY_NIL, NULL);
    same("setex", redisCommand(context, "SETEX %s %d %b", "s:1", 600, "a\0b", (size_t)3), REDIS_REPLY_STATUS, "OK");
    redisReply *reply = redisCommand(context, "GET s:1");
    if (reply == NULL || reply->len != 3 || memcmp(reply->str, "a\0b", 3) != 0) fail("binary", NULL);
    freeReplyObject(reply);
    same("ttl", redisCommand(context, "TTL s:1"), REDIS_REPLY_INTEGER, "600");
    same("set nx", redisCommand(context, "SET s:1 x NX"), REDIS_REPLY_NIL, NULL);
    same("expire", redisCommand(context, "EXPIRE s:1 0"), REDIS_REPLY_INTEGER, "1");
    same("rename", redisCommand(context, "RENAME s:1 x"), REDIS_REPLY_ERROR, "ERR no such key");

    for (int number = 0; number < 60; number++) redisAppendCommand(context, "SET s:%d %d", number, number);
    for (int number = 0; number < 60; number++) {
        if (redisGetReply(context, (void **)&reply) != REDIS_OK) fail("pipeline", context->errstr);
        same("pipeline", reply, REDIS_REPLY_STATUS, "OK");
    }
    reply = redisCommand(context, "SCAN 0 COUNT 1000");
    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || reply->element[1]->elements != 60) fail("scan", NULL);
    freeReplyObject(reply);
    same("multi", redisCommand(context, "MULTI"), REDIS_REPLY_STATUS, "OK");
    same("queued", redisCommand(context, "SET m 1"), REDIS_REPLY_STATUS, "QUEUED");
    reply = redisCommand(context, "EXEC");
    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY || reply->elements != 1) fail("exec", NULL);
    freeReplyObject(reply);
    same("eval", redisCommand(context, "EVAL %s 1 m 4", "redis.call('set', KEYS[1], ARGV[1]) return redis.call('get', KEYS[1])"), REDIS_REPLY_STRING, "4");
    same("hset", redisCommand(context, "HSET h user ada count 1"), REDIS_REPLY_INTEGER, "2");
    same("hincrby", redisCommand(context, "HINCRBY h count 41"), REDIS_REPLY_INTEGER, "42");
    same("wrongtype", redisCommand(context, "GET h"), REDIS_REPLY_ERROR, "WRONGTYPE");
    redisFree(context);

    printf("{\"name\": \"hiredis\", \"version\": \"%d.%d.%d\", \"config\": \"redisConnect(\\\"127.0.0.1\\\", 6379);\", \"exercised\": "
           "[\"password\", \"name and database\", \"string commands\", \"pipeline\", \"SCAN\", \"MULTI\", \"scripts\", \"hashes\"]}\n",
           HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
    return 0;
}
