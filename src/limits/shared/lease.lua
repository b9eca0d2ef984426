-- What of something limited each replica holds, so that it can use it without asking, and what all have used up.
--
-- KEYS: [1] what was used up: for each replica, of either part (1: money, 2: tokens or places), and of all together;
--       [2] what each replica holds, until when.
-- ARGV: [1] who asks; [2] its turn, which only goes up; [3] how many milliseconds it may hold something without asking
--       again; [4] when all this is over, in seconds since 1970, or 0; then seven numbers of either part:
--       what it has used up since it began; what it holds now; how much of that is free; the largest need that waits;
--       all needs that wait; what it would like beyond; the limit, or -1. Last, in how many parts what is left is
--       divided, of which it gets one at most; 0: twice as many as hold something.
-- Answers: whether there was room for what waits (1 or 0); then of either part what it may hold from now on, what all
--       have used up, and what others hold.
--
-- What is used up is told as the whole since the beginning: told twice, or late, it counts once.

local function text(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, turn, lease, over = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local parts = {}
for p = 1, 2 do
  local part, at = { others = 0 }, 4 + (p - 1) * 7
  for place, name in ipairs({ 'used', 'hold', 'free', 'first', 'needs', 'spare', 'limit' }) do
    part[name] = tonumber(ARGV[at + place])
  end
  local more = part.used - tonumber(redis.call('HGET', KEYS[1], me .. p) or 0)
  if more > 0 then
    -- Whole numbers of 64 bits: exact beyond what a number of this language is.
    redis.call('HINCRBY', KEYS[1], 'all' .. p, text(more))
    redis.call('HSET', KEYS[1], me .. p, text(part.used))
  end
  part.all = redis.call('HGET', KEYS[1], 'all' .. p) or '0'
  parts[p] = part
end
if over > 0 then
  redis.call('EXPIREAT', KEYS[1], over)
end

local holders, entries = 1, redis.call('HGETALL', KEYS[2])
for place = 1, #entries, 2 do
  local who = entries[place]
  local one, two, ends, at = entries[place + 1]:match('^(%d+) (%d+) (%d+) (%d+)$')
  if who == me then
    if at and tonumber(at) >= turn then
      return { 0 } -- Somebody gave this up long ago, and asked again since.
    end
  elseif not ends or tonumber(ends) <= now then
    redis.call('HDEL', KEYS[2], who)
  else
    holders = holders + 1
    parts[1].others = parts[1].others + tonumber(one)
    parts[2].others = parts[2].others + tonumber(two)
  end
end

local divisor = tonumber(ARGV[19])
if divisor == 0 then
  divisor = 2 * holders
end

local fits = 1
for p = 1, 2 do
  local part = parts[p]
  part.room = part.limit - tonumber(part.all) - part.others - (part.hold - part.free)
  if part.limit >= 0 and part.first > 0 and part.room <= 0 then
    fits = 0
  end
end

local answer = { fits }
for p = 1, 2 do
  local part = parts[p]
  local may = part.hold
  if part.limit >= 0 and fits == 1 then
    local beyond = math.min(part.spare, math.floor((part.room - part.needs) / divisor))
    -- Of the last that is left nobody holds anything for later: it is there for whoever asks.
    if beyond < part.limit / 100 then
      beyond = 0
    end
    local more = math.max(part.first, math.min(part.needs + beyond, part.room))
    may = math.max(may, part.hold - part.free + more)
  end
  part.may = text(may)
  answer[#answer + 1] = part.may
  answer[#answer + 1] = part.all
  answer[#answer + 1] = text(part.others)
end

if parts[1].may == '0' and parts[2].may == '0' then
  redis.call('HDEL', KEYS[2], me)
else
  redis.call('HSET', KEYS[2], me, table.concat({ parts[1].may, parts[2].may, text(now + lease), text(turn) }, ' '))
  redis.call('PEXPIRE', KEYS[2], lease)
end
return answer
