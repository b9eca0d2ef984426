-- How far each rate of a limit is filled, by the server's clock.
--
-- The generic cell rate algorithm, kept as a level that falls evenly: what is free is the limit less the level. Counted
-- like this, a level of a million in a day loses no fraction.
--
-- KEYS: [1] the levels.
-- ARGV: [1] how many replicas there are; then seven of each rate: its name; the limit; its period in microseconds; what
--       is owed to it (or given back, below zero), room or not; the largest need that waits; all needs that wait; what
--       the replica would like beyond.
-- Answers: whether there was room for what waits (1 or 0), in all rates or nothing is taken of any; then of each rate
--       what was taken, and its level afterwards.

local function text(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local replicas, rates, fits = tonumber(ARGV[1]), {}, 1

for at = 2, #ARGV, 7 do
  local rate = { name = ARGV[at] }
  for place, name in ipairs({ 'limit', 'period', 'owed', 'first', 'needs', 'spare' }) do
    rate[name] = tonumber(ARGV[at + place])
  end
  local level, since = (redis.call('HGET', KEYS[1], rate.name) or ''):match('^(%S+) (%d+)$')
  local fallen = math.max(0, now - tonumber(since or now)) * rate.limit / rate.period
  rate.level = math.max(0, math.max(0, tonumber(level or 0) - fallen) + rate.owed)
  rate.free = rate.limit - rate.level
  -- The level is no whole number; what it lacks of one by rounding is nothing.
  if rate.first > rate.free + 0.000001 then
    fits = 0
  end
  rates[#rates + 1] = rate
end

local answer, lives = { fits }, 1
for _, rate in ipairs(rates) do
  local take = 0
  if fits == 1 then
    local beyond = math.max(0, math.min(rate.spare, (rate.free - rate.needs) / (4 * replicas)))
    take = math.max(rate.first, math.floor(math.min(rate.needs + beyond, rate.free)))
  end
  local level = rate.level + take
  redis.call('HSET', KEYS[1], rate.name, string.format('%.17g %.0f', level, now))
  lives = math.max(lives, level * rate.period / rate.limit)
  answer[#answer + 1] = text(take)
  answer[#answer + 1] = text(math.ceil(level))
end
redis.call('PEXPIRE', KEYS[1], text(math.ceil(lives / 1000) + 1000))
return answer
