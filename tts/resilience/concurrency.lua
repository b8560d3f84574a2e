-- One process states what it holds and waits for, and is told who of its waiters may go (tts/resilience/concurrency.py has the rules).
--
-- KEYS  a hash of the statements by process; the limit.
-- ARGV  1 our id
--       2 as JSON, `held`: [patient, background], and `line` in order: [patient, background, number, waited]
--       3 how long our slots stay held, 4 and our places in the line kept, if we are not heard from again
--       5 the most of a patient
--       6 the limit as we know it or '', 7 and '1' if that is news
-- Returns the limit or false, and the numbers of those that may go. Times are microseconds.

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local ours, lease, patience, most = cjson.decode(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local limit = tonumber(redis.call('GET', KEYS[2]))
if ARGV[6] ~= '' and (ARGV[7] == '1' or not limit) then
  limit = tonumber(ARGV[6])
  redis.call('SET', KEYS[2], limit)
end

local total, background, patients = 0, 0, {}
local function take(claim)
  total = total + 1
  if claim[2] then background = background + 1 end
  patients[claim[1]] = (patients[claim[1]] or 0) + 1
end
local function may_go(claim)
  if not limit then return true end
  return total < limit and (claim[1] == '' or (patients[claim[1]] or 0) < most)
    and not (claim[2] and background >= math.max(1, math.floor(limit / 2)))
end

local line = {}
local statements = redis.call('HGETALL', KEYS[1])
for i = 1, #statements, 2 do
  local process, other = statements[i], cmsgpack.unpack(statements[i + 1])
  if other.lease < now then
    redis.call('HDEL', KEYS[1], process)
  elseif process ~= ARGV[1] then
    for _, claim in ipairs(other.held) do take(claim) end
    if other.patience >= now then
      for _, claim in ipairs(other.line) do claim[5] = process; line[#line + 1] = claim end
    end
  end
end
local last = 0
for _, claim in ipairs(ours.held) do take(claim) end
for _, claim in ipairs(ours.line) do
  last = math.max(now - claim[4], last + 1)
  claim[4], claim[5] = last, ARGV[1]
  line[#line + 1] = claim
end
table.sort(line, function(a, b) return a[4] < b[4] or (a[4] == b[4] and a[5] < b[5]) end)

local held, waiting, going = ours.held, {}, {}
for _, claim in ipairs(line) do
  local go = may_go(claim)
  if go then take(claim) end
  if claim[5] == ARGV[1] then
    local list = go and held or waiting
    list[#list + 1] = claim
    if go then going[#going + 1] = claim[3] end
  end
end
if #held + #waiting > 0 then
  redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(
    {held = held, line = waiting, lease = now + lease, patience = now + patience}))
else
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return {limit or false, going}
