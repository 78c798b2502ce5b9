-- What wrk sends, by the name of the workload: `wrk … -- get <path> <user>`, `send`, `log-in`, `mixed <date>`.

local USERS, FIRST_NEIGHBOUR, REACH = 10000, 11, 20
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

local function username(user)
  return string.format("user%05d", user)
end

local function anybody()
  return math.random(FIRST_NEIGHBOUR, USERS)
end

local function neighbour(user)
  return FIRST_NEIGHBOUR + (user - FIRST_NEIGHBOUR + math.random(REACH)) % (USERS - FIRST_NEIGHBOUR + 1)
end

local function format(path, user, body)
  local headers = { Authorization = string.format("Token %015d", user) .. string.rep("0", 25) }
  headers["Content-Type"] = body and "application/json"
  return wrk.format(body and "POST" or "GET", path, headers, body)
end

local function send()
  local sender = anybody()
  return format("/api/message", sender, string.format(
    '{"receiver": "%s", "content": "The quick brown fox jumps over the lazy dog, as many a message does, %d."}',
    username(neighbour(sender)), math.random(1000000)))
end

local function log_in()
  local user = anybody()
  return format("/api/auth/login", user, string.format('{"username": "%s", "password": "a long secret"}', username(user)))
end

local function mixed(date)
  local chance, user = math.random(100), anybody()
  if chance <= 15 then
    return send()
  elseif chance <= 20 then
    return format(string.format("/api/message/sent?receiver=%s&date=%s", username(neighbour(user)), date), user)
  end
  return format("/api/message", user)
end

local kinds = { get = format, send = send, ["log-in"] = log_in, mixed = mixed }

function init(args)
  math.randomseed(os.time() * 1000 + number)
  request = function() return kinds[args[1]](args[2], args[3]) end
end

function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  print(string.format('RESULT {"requests": %d, "microseconds": %d, "p99": %d, "failed": %d}',
    summary.requests, summary.duration, latency:percentile(99), failed))
end
