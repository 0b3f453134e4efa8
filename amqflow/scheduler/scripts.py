"""The Lua of the Redis schedule store: one script per verb, a batch per call.

Keys of an application, all with its hash tag: ``version`` (a counter), ``entries`` (a hash of
run-time entries as JSON), ``leases`` (a sorted set of "slot name" by the end of the lease),
``schedulers`` (a sorted set of owners by when they are thought dead); per entry a hash (``c``
cursor, ``s`` start, ``f`` fingerprint, ``i`` last id, ``l`` last slot, ``p`` paused at, and counts
under ``n:<what>``) and its history, a list of JSON. All times are milliseconds.

Every script may run twice: a cursor moves once, a lease ends once.
"""

from __future__ import annotations

from typing import Final

from amqflow.stores.redis import Script

_TIME: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_STAND: Final = """
local function stand(key)
  return redis.call('HMGET', key, 'c', 's', 'i', 'l', 'p', 'n:ran', 'n:missed', 'n:skipped',
    'n:failed', 'n:manual')
end
"""
_WRITE: Final = """
local function write(entry, history, what, count, json, keep)
  redis.call('LPUSH', history, json)
  redis.call('LTRIM', history, 0, keep - 1)
  redis.call('HINCRBY', entry, 'n:' .. what, count)
end
"""

#: KEYS: entries' hashes. ARGV: now, correction; then the fingerprint of each.
ADOPT: Final = Script(
    _TIME
    + _STAND
    + """
local given, correction = ARGV[1], tonumber(ARGV[2])
local latest = math.max(tonumber(given), now)
local answers = {}
for i, key in ipairs(KEYS) do
  local print = ARGV[i + 2]
  local old = redis.call('HMGET', key, 'c', 's', 'f')
  if not old[1] then
    redis.call('HSET', key, 'c', given, 's', given, 'f', print)
  else
    local cursor, start = old[1], old[2]
    if old[3] ~= print then
      start = given
      if tonumber(cursor) < tonumber(given) then cursor = given end
    end
    if tonumber(cursor) > latest + correction then
      cursor = given
      if tonumber(start) > tonumber(given) then start = given end
    end
    if cursor ~= old[1] or start ~= old[2] or print ~= old[3] then
      redis.call('HSET', key, 'c', cursor, 's', start, 'f', print)
    end
  end
  answers[i] = stand(key)
end
return answers
"""
)

#: KEYS: entries' hashes.
STANDINGS: Final = Script(
    _STAND
    + """
local answers = {}
for i, key in ipairs(KEYS) do answers[i] = stand(key) end
return answers
"""
)

#: KEYS: leases; then per claim its hash and history. ARGV: milliseconds of the lease, lines of
#: history kept; then per claim name, expected cursor, new cursor, last id or "", the slots to
#: lease ("" or joined by blanks), and of a record its what, count and JSON ("" for none). Answers
#: "1" for a claim that is won, else where the entry stands; false where it is not known.
CLAIM: Final = Script(
    _TIME
    + _STAND
    + _WRITE
    + """
local until_ = string.format('%d', now + tonumber(ARGV[1]))
local keep = tonumber(ARGV[2])
local answers = {}
for i = 1, (#KEYS - 1) / 2 do
  local entry, history, at = KEYS[2 * i], KEYS[2 * i + 1], 8 * i - 6
  local name, expected, cursor = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local known = redis.call('HMGET', entry, 'c', 'p')
  if known[1] == expected and not known[2] then
    local last, slots, what = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
    if slots == '' then
      redis.call('HSET', entry, 'c', cursor)
    else
      local latest
      for slot in string.gmatch(slots, '%d+') do
        redis.call('ZADD', KEYS[1], until_, slot .. ' ' .. name)
        latest = slot
      end
      redis.call('HSET', entry, 'c', cursor, 'i', last, 'l', latest)
    end
    if what ~= '' then write(entry, history, what, ARGV[at + 7], ARGV[at + 8], keep) end
    answers[i] = '1'
  else
    answers[i] = known[1] and stand(entry) or false
  end
end
return answers
"""
)

#: KEYS: leases; then per mark its entry's hash and history. ARGV: lines of history kept; then per
#: mark name, slot, what, JSON.
MARK: Final = Script(
    _WRITE
    + """
local keep = tonumber(ARGV[1])
for i = 1, (#KEYS - 1) / 2 do
  local entry, history, at = KEYS[2 * i], KEYS[2 * i + 1], 4 * i - 3
  local name, slot, what = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if redis.call('ZREM', KEYS[1], slot .. ' ' .. name) == 1 then
    write(entry, history, what, 1, ARGV[at + 4], keep)
    if what == 'failed' and redis.call('HGET', entry, 'l') == slot then
      redis.call('HDEL', entry, 'i')
    end
  end
end
return 1
"""
)

#: KEYS: version, leases, schedulers. ARGV: owner, milliseconds it is thought alive, most leases
#: to tell. Answers version, now, number of schedulers, then overdue members and their ends.
BEAT: Final = Script(
    _TIME
    + """
redis.call('ZADD', KEYS[3], now + tonumber(ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
local overdue = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[3])
return {redis.call('GET', KEYS[1]) or '0', string.format('%d', now), redis.call('ZCARD', KEYS[3]),
  overdue}
"""
)

#: KEYS: leases. ARGV: how many to leave out, most to tell. Answers overdue members and their ends.
ENDED: Final = Script(
    _TIME
    + """
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', ARGV[1], ARGV[2])
"""
)

#: KEYS: leases. ARGV: milliseconds of the new lease; then member and the end that was seen.
TAKE: Final = Script(
    _TIME
    + """
local until_ = string.format('%d', now + tonumber(ARGV[1]))
local taken = {}
for i = 1, (#ARGV - 1) / 2 do
  local member, seen = ARGV[2 * i], ARGV[2 * i + 1]
  local score = redis.call('ZSCORE', KEYS[1], member)
  local same = score and tonumber(score) == tonumber(seen)
  if same then redis.call('ZADD', KEYS[1], until_, member) end
  taken[i] = same and 1 or 0
end
return taken
"""
)

#: KEYS: leases. ARGV: milliseconds of the lease; then members.
RENEW: Final = Script(
    _TIME
    + """
local until_ = string.format('%d', now + tonumber(ARGV[1]))
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', until_, ARGV[i]) end
return 1
"""
)

#: KEYS: version, entries, the entry's hash. ARGV: name, JSON, "1" to replace.
ADD: Final = Script("""
if ARGV[3] ~= '1' and redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[3], 'c', 's', 'f', 'i', 'l')
redis.call('INCR', KEYS[1])
return 1
""")

#: KEYS: version, entries, the entry's hash, its history. ARGV: name.
REMOVE: Final = Script("""
local known = redis.call('HDEL', KEYS[2], ARGV[1]) + redis.call('DEL', KEYS[3])
redis.call('DEL', KEYS[4])
redis.call('INCR', KEYS[1])
return known
""")

#: KEYS: version, the entry's hash. ARGV: now.
PAUSE: Final = Script("""
local fresh = redis.call('HSETNX', KEYS[2], 'p', ARGV[1])
if fresh == 1 then redis.call('INCR', KEYS[1]) end
return fresh
""")

#: KEYS: version, the entry's hash. ARGV: now.
RESUME: Final = Script("""
if redis.call('HDEL', KEYS[2], 'p') == 0 then return 0 end
local cursor = redis.call('HGET', KEYS[2], 'c')
if cursor and tonumber(cursor) < tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[2], 'c', ARGV[1])
end
redis.call('INCR', KEYS[1])
return 1
""")

#: KEYS: the entry's hash, its history. ARGV: what, count, JSON, lines kept.
NOTE: Final = Script(
    _WRITE
    + """
write(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]))
return 1
"""
)
