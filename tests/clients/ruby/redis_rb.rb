# redis-rb with its defaults does what session back ends do.

require 'json'
require 'redis'

PASSWORD = ENV.fetch('REDIS_PASSWORD')
EXERCISED = []

def connect(**options)
  Redis.new(host: ENV.fetch('REDIS_HOST'), port: ENV.fetch('REDIS_PORT').to_i, password: PASSWORD, **options)
end

def same(expected, actual)
  raise "#{expected.inspect} expected, not #{actual.inspect}" unless expected == actual
end

def refused(text)
  yield
rescue Redis::BaseError => error
  raise unless error.message.include?(text)
else
  raise "#{text}: not refused"
end

refused('NOAUTH') { connect(password: nil).ping }
refused('WRONGPASS') { connect(password: 'no').ping }
redis = connect
same('PONG', redis.ping)
same('PONG', connect(username: 'default').ping)
EXERCISED << 'password'

other = connect(db: 3, id: 'named')
same('named', other.call(%w[client getname]))
same('OK', other.set('only here', '1'))
same(nil, redis.get('only here'))
same('OK', other.flushdb)
same('standalone', redis.info['redis_mode'])
EXERCISED << 'name and database' << 'INFO'

same(nil, redis.get('missing'))
same('OK', redis.set('s:1', "\x00\xff\r\n".b, ex: 600))
same("\x00\xff\r\n".b, redis.get('s:1').b)
same(600, redis.ttl('s:1'))
same(false, redis.set('s:1', 'x', nx: true))
same(true, redis.set('s:1', 'x', xx: true, px: 100_000))
same('OK', redis.setex('s:1', 50, 'y'))
same(false, redis.setnx('s:1', 'z'))
same(50, redis.ttl('s:1'))
same(true, redis.expire('s:1', 100))
same('y', redis.getex('s:1', ex: 70))
same(70, redis.ttl('s:1'))
same(['y', nil], redis.mget('s:1', 'missing'))
same(1, redis.exists('s:1', 'missing'))
same('y', redis.getdel('s:1'))
same(0, redis.del('s:1'))
refused('no such key') { redis.rename('s:1', 'x') }
EXERCISED << 'string commands'

same(['OK'] * 60, redis.pipelined { |pipeline| 60.times { |number| pipeline.set("s:#{number}", number) } })
EXERCISED << 'pipeline'
same(60, redis.scan_each(match: 's:*', count: 10).to_a.uniq.size)
EXERCISED << 'SCAN'
same([true, true, '1'], redis.multi { |all| all.setnx('m', '1'); all.expire('m', 9); all.get('m') })
same(nil, redis.watch('m') { connect.set('m', '2'); redis.multi { |all| all.set('m', '3') } })
same('2', redis.get('m'))
EXERCISED << 'MULTI and WATCH'
script = "return redis.call('set', KEYS[1], ARGV[1]) and {KEYS[1], redis.call('get', KEYS[1]), 1.9, false, 7}"
same(['m', '4', 1, nil, 7], redis.eval(script, keys: ['m'], argv: ['4']))
same(['m', '5', 1, nil, 7], redis.evalsha(redis.script(:load, script), keys: ['m'], argv: ['5']))
refused('NOSCRIPT') { redis.evalsha('0' * 40) }
EXERCISED << 'scripts'
same(2, redis.hset('h', 'user', 'ada', 'count', 1))
same(42, redis.hincrby('h', 'count', 41))
same({ 'user' => 'ada', 'count' => '42' }, redis.hgetall('h'))
same(['ada', nil], redis.hmget('h', 'user', 'missing'))
same(1, redis.hdel('h', 'user'))
refused('WRONGTYPE') { redis.get('h') }
EXERCISED << 'hashes'

puts({
  name: 'redis-rb',
  version: Redis::VERSION,
  exercised: EXERCISED,
  config: "Redis.new(url: 'redis://:…@127.0.0.1:6379')"
}.to_json)
