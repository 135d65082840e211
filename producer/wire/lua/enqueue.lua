-- Enqueues rows: single flight, admission and XADD as one step.
-- KEYS[1] stream of the caller's lane   KEYS[2] stream of the other lane   KEYS[3] load   KEYS[4..] wait key of each row
-- ARGV[1] lane   ARGV[2] the caller's hint channel   ARGV[3] time budget in ms   ARGV[4] most rows on the lane
-- ARGV[5] most bytes on the lane   ARGV[6] most rows in a job   ARGV[7] job header   ARGV[8..] text of each row
-- Returns {rows added, rows attached to a flight, rows on the lane, rows handled}. A lane that is nearly full takes, of
-- an interactive call, nothing; of a bulk call, the first rows. An empty lane takes one row, whatever its size.
local lane, rows_per_job, time = ARGV[1], tonumber(ARGV[6]), redis.call('TIME')
local deadline_ms = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])

-- A row is in flight while its entry is on a stream. An interactive caller does not wait behind the bulk lane.
-- Whatever rubbish a wait key or the load may hold must not keep a row from its lane: hence pcall, and `or 0`.
local there = {}
local function in_flight(entry)
  local other, id = string.match(type(entry) == 'string' and entry or '', '^(%a+):(.+)$')
  if not other or (other == 'bulk' and lane ~= 'bulk') then return false end
  if there[entry] == nil then there[entry] = #redis.pcall('XRANGE', other == lane and KEYS[1] or KEYS[2], id, id) > 0 end
  return there[entry]
end

-- Most rows are in nobody's flight and have no wait key: `unheard`. They get theirs at once, the others step by step.
local fresh, unheard, rows, bytes, taken, handled = {}, {}, 0, 0, 0, #KEYS - 3
for row = 4, #KEYS do
  local entry = redis.pcall('HGET', KEYS[row], 'entry')
  if not in_flight(entry) then fresh[#fresh + 1], unheard[row] = row, not entry end
end
if redis.call('XLEN', KEYS[1]) > 0 then
  local held = redis.pcall('HMGET', KEYS[3], lane .. ':rows', lane .. ':bytes')
  rows, bytes = math.max(0, tonumber(held[1]) or 0), math.max(0, tonumber(held[2]) or 0)
end
for n, row in ipairs(fresh) do
  local size = #ARGV[row + 4] + ((n - 1) % rows_per_job == 0 and #ARGV[7] or 0)
  if rows > 0 and (rows >= tonumber(ARGV[4]) or bytes + size > tonumber(ARGV[5])) then break end
  rows, bytes, taken = rows + 1, bytes + size, n
end
if taken < #fresh and lane ~= 'bulk' then return {0, 0, rows - taken, 0} end
if taken < #fresh then handled = fresh[taken + 1] - 4 end

local lease_ms, until_ms = tonumber(ARGV[3]) + 1000, string.format('%d', deadline_ms)
for first = 1, taken, rows_per_job do
  local last, fields = math.min(first + rows_per_job - 1, taken), {}
  for n = first, last do fields[#fields + 1], fields[#fields + 2] = n - first, ARGV[fresh[n] + 4] end
  local entry = lane .. ':' .. redis.call('XADD', KEYS[1], '*', 'job', ARGV[7], unpack(fields))
  for n = first, last do
    local wait = KEYS[fresh[n]]
    if not unheard[fresh[n]] then redis.pcall('HSET', wait, 'entry', entry)
    elseif redis.pcall('HSET', wait, 'entry', entry, ARGV[2], until_ms) then redis.call('PEXPIRE', wait, lease_ms) end
  end
end
if taken > 0 then redis.pcall('HSET', KEYS[3], lane .. ':rows', rows, lane .. ':bytes', bytes) end

for row = 4, handled + 3 do
  if not unheard[row] and (tonumber(redis.pcall('HGET', KEYS[row], ARGV[2])) or 0) < deadline_ms then
    redis.pcall('HSET', KEYS[row], ARGV[2], until_ms)
  end
  if not unheard[row] and redis.call('PTTL', KEYS[row]) < lease_ms then redis.call('PEXPIRE', KEYS[row], lease_ms) end
end
return {taken, handled - taken, rows, handled}
