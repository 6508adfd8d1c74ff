# A Rack application with redis-rack.

require_relative 'serve'
require 'redis-rack'

pages = {
  'POST /login' => lambda do |request|
    request.session_options[:renew] = true
    request.session['user'] = request.params['user']
    'ok'
  end,
  'GET /me' => ->(request) { request.session['user'].to_s },
  'POST /count' => ->(request) { (request.session['count'] = request.session['count'].to_i + 1).to_s },
  'POST /rotate' => lambda do |request|
    request.session['user']
    request.session_options[:renew] = true
    'ok'
  end,
  'POST /logout' => lambda do |request|
    request.session.clear
    request.session_options[:drop] = true
    'ok'
  end
}
handler = lambda do |env|
  request = Rack::Request.new(env)
  answer = pages.fetch("#{request.request_method} #{request.path_info}").call(request)
  # Else every visitor gets a session.
  request.session_options[:skip] = true if request.session.empty? && !request.session_options[:drop]
  [200, { 'Content-Type' => 'text/plain' }, [answer]]
end
app = Rack::Session::Redis.new(handler, redis_server: "#{SERVER}/rack:session", expire_after: TTL)
serve(
  app,
  name: 'redis-rack',
  version: version('redis-rack', 'redis-store', 'redis'),
  config: "use Rack::Session::Redis,\n  redis_server: 'redis://127.0.0.1:6379/0/rack:session', expire_after: 1800",
  keys: 'rack:session:*',
  touch: true,
  rotate: true
)
