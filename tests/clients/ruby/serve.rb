# Serves a Rack application on a free port and says so in one line of JSON. Knows no back end.

require 'json'
require 'rack'
require 'rack/handler/webrick'
require 'webrick'

TTL = 1800
SERVER = "redis://#{ENV.fetch('REDIS_HOST', '127.0.0.1')}:#{ENV.fetch('REDIS_PORT')}/0"

def version(*gems)
  gems.map { |name| "#{name} #{Gem.loaded_specs.fetch(name).version}" }.join(', ')
end

def serve(app, about)
  options = { Host: '127.0.0.1', Port: 0, AccessLog: [], Logger: WEBrick::Log.new($stderr, WEBrick::Log::WARN) }
  Rack::Handler::WEBrick.run(app, **options) do |server|
    puts({ ttl: TTL, keys: '*', **about, http: server.config[:Port] }.to_json)
    $stdout.flush
  end
end
