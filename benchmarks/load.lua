-- What wrk sends, by the name of the workload: `wrk … -- get <path> <user>`, `send`, `send <receiver>`, `log-in`, `mixed <date>`.

local USERS, FIRST_NEIGHBOUR, REACH = 10000, 11, 20
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

local function username(user)
  return string.format("user%05d", user)
end

local function headers(user)
  return { ["Authorization"] = "Token " .. string.format("%015d", user) .. string.rep("0", 49),
           ["Content-Type"] = "application/json" }
end

local function anybody()
  return math.random(FIRST_NEIGHBOUR, USERS)
end

local function neighbour(user)
  return FIRST_NEIGHBOUR + (user - FIRST_NEIGHBOUR + math.random(REACH)) % (USERS - FIRST_NEIGHBOUR + 1)
end

local function send(receiver)
  local sender
  repeat sender = anybody() until username(sender) ~= receiver
  local body = string.format(
    '{"receiver": "%s", "content": "The quick brown fox jumps over the lazy dog, as many a message does, %d."}',
    receiver or username(neighbour(sender)), math.random(1000000))
  return wrk.format("POST", "/api/message", headers(sender), body)
end

local kinds = {}

function kinds.get(path, user)
  local request = wrk.format("GET", path, headers(tonumber(user)))
  return function() return request end
end

function kinds.send(receiver)
  return function() return send(receiver) end
end

kinds["log-in"] = function()
  return function()
    local body = string.format('{"username": "%s", "password": "a long secret"}', username(anybody()))
    return wrk.format("POST", "/api/auth/login", { ["Content-Type"] = "application/json" }, body)
  end
end

function kinds.mixed(date)
  return function()
    local chance = math.random(100)
    if chance <= 15 then
      return send()
    end
    local user = anybody()
    local path = "/api/message"
    if chance <= 20 then
      path = string.format("/api/message/sent?receiver=%s&date=%s", username(neighbour(user)), date)
    end
    return wrk.format("GET", path, headers(user))
  end
end

function init(args)
  math.randomseed(os.time() * 1000 + number)
  request = kinds[args[1]](args[2], args[3])
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    'RESULT {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "refused": %d, "broken": %d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
