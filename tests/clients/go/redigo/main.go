// redigo with its defaults does what session back ends do.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"reflect"
	"strings"

	"github.com/gomodule/redigo/redis"
)

var exercised []string

func connect(options ...redis.DialOption) (redis.Conn, error) {
	return redis.Dial("tcp", net.JoinHostPort(os.Getenv("REDIS_HOST"), os.Getenv("REDIS_PORT")), options...)
}

func must(conn redis.Conn, err error) redis.Conn {
	if err != nil {
		log.Fatal(err)
	}
	return conn
}

// Fails unless a command is answered by what is expected.
func same(conn redis.Conn, expected interface{}, command string, args ...interface{}) {
	reply, err := conn.Do(command, args...)
	if bytes, ok := reply.([]byte); ok {
		reply = string(bytes)
	}
	if err != nil || !reflect.DeepEqual(reply, expected) {
		log.Fatalf("%s %v: %v %v, expected %v", command, args, reply, err, expected)
	}
}

func main() {
	password := os.Getenv("REDIS_PASSWORD")
	if _, err := connect(redis.DialPassword("no")); err == nil || !strings.HasPrefix(err.Error(), "WRONGPASS") {
		log.Fatal("a wrong password: ", err)
	}
	if _, err := must(connect()).Do("PING"); err == nil || !strings.HasPrefix(err.Error(), "NOAUTH") {
		log.Fatal("no password: ", err)
	}
	conn := must(connect(redis.DialPassword(password)))
	same(conn, "PONG", "PING")
	same(must(connect(redis.DialUsername("default"), redis.DialPassword(password))), "PONG", "PING")
	exercised = append(exercised, "password")

	other := must(connect(redis.DialPassword(password), redis.DialDatabase(3), redis.DialClientName("named")))
	same(other, "named", "CLIENT", "GETNAME")
	same(other, "OK", "SET", "only here", 1)
	same(conn, nil, "GET", "only here")
	same(other, "OK", "FLUSHDB")
	exercised = append(exercised, "name and database")

	same(conn, nil, "GET", "missing")
	same(conn, "OK", "SET", "s:1", "\x00\xff\r\n", "EX", 600)
	same(conn, "\x00\xff\r\n", "GET", "s:1")
	same(conn, int64(600), "TTL", "s:1")
	same(conn, nil, "SET", "s:1", "x", "NX")
	same(conn, "OK", "SETEX", "s:1", 50, "y")
	same(conn, int64(1), "EXPIRE", "s:1", 100)
	same(conn, "y", "GETEX", "s:1", "EX", 70)
	same(conn, int64(70), "TTL", "s:1")
	same(conn, int64(1), "DEL", "s:1", "missing")
	if _, err := conn.Do("RENAME", "s:1", "x"); err == nil || err.Error() != "ERR no such key" {
		log.Fatal("no such key: ", err)
	}
	exercised = append(exercised, "string commands")

	for number := 0; number < 60; number++ {
		if err := conn.Send("SET", fmt.Sprint("s:", number), number); err != nil {
			log.Fatal(err)
		}
	}
	replies, err := redis.Strings(conn.Do(""))
	if err != nil || len(replies) != 60 || replies[59] != "OK" {
		log.Fatal("pipeline: ", replies, err)
	}
	exercised = append(exercised, "pipeline")

	found, cursor := map[string]bool{}, "0"
	for first := true; first || cursor != "0"; first = false {
		page, err := redis.Values(conn.Do("SCAN", cursor, "MATCH", "s:*", "COUNT", 10))
		if err != nil {
			log.Fatal(err)
		}
		var keys []string
		if _, err := redis.Scan(page, &cursor, &keys); err != nil {
			log.Fatal(err)
		}
		for _, key := range keys {
			found[key] = true
		}
	}
	if len(found) != 60 {
		log.Fatal("SCAN: ", len(found))
	}
	exercised = append(exercised, "SCAN")

	// As scs saves a session: all of it in one flush.
	for _, line := range [][]interface{}{{"MULTI"}, {"SET", "m", "v"}, {"PEXPIREAT", "m", int64(4102444800000)}} {
		if err := conn.Send(line[0].(string), line[1:]...); err != nil {
			log.Fatal(err)
		}
	}
	same(conn, []interface{}{"OK", int64(1)}, "EXEC")
	exercised = append(exercised, "MULTI")

	// Sent by its hash first, and whole when the server does not know it.
	script := redis.NewScript(1, "return redis.call('set', KEYS[1], ARGV[1]) and redis.call('get', KEYS[1])")
	for _, value := range []string{"4", "5"} {
		if reply, err := redis.String(script.Do(conn, "m", value)); err != nil || reply != value {
			log.Fatal("script: ", reply, err)
		}
	}
	exercised = append(exercised, "scripts")

	same(conn, int64(2), "HSET", "h", "user", "ada", "count", 1)
	same(conn, int64(42), "HINCRBY", "h", "count", 41)
	if fields, err := redis.StringMap(conn.Do("HGETALL", "h")); err != nil || !reflect.DeepEqual(fields, map[string]string{"user": "ada", "count": "42"}) {
		log.Fatal("hash: ", fields, err)
	}
	same(conn, int64(1), "HDEL", "h", "user")
	exercised = append(exercised, "hashes")

	version, err := exec.Command("dpkg-query", "--show", "--showformat=${source:Upstream-Version}", "golang-github-gomodule-redigo-dev").Output()
	if err != nil {
		log.Fatal(err)
	}
	about := map[string]interface{}{
		"name":      "redigo",
		"version":   string(version),
		"exercised": exercised,
		"config":    "redis.Dial(\"tcp\", \"127.0.0.1:6379\", redis.DialPassword(\"…\"))",
	}
	if err := json.NewEncoder(os.Stdout).Encode(about); err != nil {
		log.Fatal(err)
	}
}
