-- One process reports the requests that hold a slot and those that wait. The answer names the waiters to admit.
-- The rules are those of tts/resilience/concurrency.py.
--
-- KEYS  1 a hash of the snapshots by process id; 2 the limit
-- ARGV  1 our process id
--       2 our snapshot as JSON: `held` is a list of [patient, background]. `line` is a list of
--         [patient, background, number, waited], in order of arrival.
--       3 how long our slots stay held, and 4 how long our waiters keep their places, if we stop reporting
--       5 the maximum of slots for one patient
--       6 the limit as we know it or '', and 7 '1' if we have just learned it from the provider
-- Returns the limit (or false) and the numbers of our waiters to admit. All times are microseconds.
-- The stored field names stay as they are: processes of different releases share the hash.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local ours, lease, patience, most = cjson.decode(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local limit = tonumber(redis.call('GET', KEYS[2]))
if ARGV[6] ~= '' and (ARGV[7] == '1' or not limit) then
  limit = tonumber(ARGV[6])
  redis.call('SET', KEYS[2], limit)
end

local total, background, patients = 0, 0, {}
local most_background = limit and math.min(math.max(math.floor(limit / 4), 1), limit - 1) or 1
local function take(waiter)
  total = total + 1
  if waiter[2] then
    background = background + 1
  else
    patients[waiter[1]] = (patients[waiter[1]] or 0) + 1
  end
end
local function may_be_admitted(waiter)
  if waiter[2] then return background < most_background and (not limit or total < limit - 1) end
  return not limit or (total < limit and (waiter[1] == '' or (patients[waiter[1]] or 0) < most))
end

local line = {}
local snapshots = redis.call('HGETALL', KEYS[1])
for i = 1, #snapshots, 2 do
  local process, other = snapshots[i], cmsgpack.unpack(snapshots[i + 1])
  if other.lease < now then
    redis.call('HDEL', KEYS[1], process)
  elseif process ~= ARGV[1] then
    for _, waiter in ipairs(other.held) do take(waiter) end
    if other.patience >= now then
      for _, waiter in ipairs(other.line) do waiter[5] = process; line[#line + 1] = waiter end
    end
  end
end
local last = 0
for _, waiter in ipairs(ours.held) do take(waiter) end
for _, waiter in ipairs(ours.line) do
  last = math.max(now - waiter[4], last + 1)
  waiter[4], waiter[5] = last, ARGV[1]
  line[#line + 1] = waiter
end
table.sort(line, function(a, b)
  if a[2] ~= b[2] then return not a[2] end -- patients first
  return a[4] < b[4] or (a[4] == b[4] and a[5] < b[5])
end)

local held, waiting, admitted = ours.held, {}, {}
for _, waiter in ipairs(line) do
  local is_admitted = may_be_admitted(waiter)
  if is_admitted then take(waiter) end
  if waiter[5] == ARGV[1] then
    local list = is_admitted and held or waiting
    list[#list + 1] = waiter
    if is_admitted then admitted[#admitted + 1] = waiter[3] end
  end
end
if #held + #waiting > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(
    {held = held, line = waiting, lease = now + lease, patience = now + patience}))
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return {limit or false, admitted}
