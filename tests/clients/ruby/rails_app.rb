# A Rails application with redis-actionpack.

require_relative 'serve'
require 'logger'
require 'rails'
require 'action_controller/railtie'
require 'redis-actionpack'

class App < Rails::Application
  config.eager_load = false
  config.secret_key_base = 'only for tests, but it has to be this long'
  config.hosts.clear
  config.logger = Logger.new($stderr)
  config.log_level = :error
  config.consider_all_requests_local = true
  config.session_store :redis_store, servers: ["#{SERVER}/session"], expire_after: TTL, key: '_app_session'
end

class PagesController < ActionController::Base
  # Else every visitor gets a session.
  after_action { request.session_options[:skip] = true if session.empty? }

  def login
    reset_session
    session[:user] = params[:user]
    render plain: 'ok'
  end

  def me
    render plain: session[:user].to_s
  end

  def count
    session[:count] = session[:count].to_i + 1
    render plain: session[:count].to_s
  end

  def rotate
    request.session_options[:renew] = true
    session[:user]
    render plain: 'ok'
  end

  def logout
    reset_session
    render plain: 'ok'
  end
end

App.initialize!
App.routes.draw do
  get '/me', to: 'pages#me'
  %w[login count rotate logout].each { |page| post "/#{page}", to: "pages##{page}" }
end
# Debian's updates within a release are no news.
rails = Rails.version.split('.')[0, 2].join('.')
serve(
  App,
  name: 'Rails, redis-actionpack',
  version: "Rails #{rails}, #{version('redis-actionpack', 'redis-store', 'redis')}",
  config: "config.session_store :redis_store,\n  servers: ['redis://127.0.0.1:6379/0/session'], expire_after: 30.minutes",
  keys: 'session:*',
  touch: true,
  rotate: true
)
