"""The Lua of the Redis chord store: one script per verb, each atomic for one chord.

Every chord has two keys in one cluster slot, both passed as KEYS: its record, a hash of ``state,
size, added, failed, why, base, epoch, fence, lease, created, spec`` and ``+<id>`` of each member
added since; and its members, a hash of index to ending (``[epoch]S…`` or ``[epoch]F…``, see
``records.Ending``). ``size`` is empty while members are drawn, ``base`` is the epoch it was sent
in, ``epoch`` grows with each reopening, ``why`` is the index of a member that failed. Times are
milliseconds of the server's clock. Every script may run twice.
"""

from __future__ import annotations

from typing import Final

from amqflow.stores.redis import Script
from amqflow.workflow.records import ADDED

_NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

#: ARGV: size or "", epoch, milliseconds to live, spec. Answers the state.
CREATE: Final = Script(
    _NOW
    + """
local record, members = KEYS[1], KEYS[2]
local old = redis.call('HMGET', record, 'state', 'base')
if old[1] and tonumber(old[2]) >= tonumber(ARGV[2]) then
  return old[1]
end
redis.call('DEL', record, members)
redis.call('HSET', record, 'state', 'open', 'size', ARGV[1], 'added', 0, 'failed', 0, 'why', '',
  'base', ARGV[2], 'epoch', ARGV[2], 'fence', 0, 'lease', 0, 'created', string.format('%d', now),
  'spec', ARGV[4])
redis.call('PEXPIRE', record, ARGV[3])
return 'open'
"""
)

#: ARGV: size, spec or "". Answers 1 where the chord is complete, else 0.
SEAL: Final = Script(
    """
local record, members = KEYS[1], KEYS[2]
local old = redis.call('HMGET', record, 'state', 'size', 'added')
if not old[1] or old[1] == 'fired' then
  return 0
end
if old[2] == '' then
  old[2] = ARGV[1]
  redis.call('HSET', record, 'size', ARGV[1])
  if ARGV[2] ~= '' then
    redis.call('HSET', record, 'spec', ARGV[2])
  end
end
if old[1] == 'open' and redis.call('HLEN', members) >= old[2] + old[3] then
  return 1
end
return 0
"""
)

#: ARGV: id. Answers the index, or -1 where the chord takes no more.
EXTEND: Final = Script(
    f"""
local record, field = KEYS[1], '+' .. ARGV[1]
local old = redis.call('HMGET', record, 'state', field)
if old[2] then
  return tonumber(old[2])
end
if old[1] ~= 'open' then
  return -1
end
local index = {ADDED} + redis.call('HINCRBY', record, 'added', 1) - 1
redis.call('HSET', record, field, string.format('%d', index))
return index
"""
)

#: ARGV: milliseconds of a lease, and to live where it is opened again; then index and ending of
#: each member. Answers a letter: W (waiting), R fence (ready), F fence (failed), B (busy), D
#: (done), G (gone).
COUNT: Final = Script(
    _NOW
    + f"""
local record, members = KEYS[1], KEYS[2]
local old = redis.call('HMGET', record, 'state', 'size', 'added', 'failed', 'why', 'lease')
local state, size = old[1], tonumber(old[2])
if not state then
  return 'G'
elseif state == 'fired' then
  return 'D'
end
local most, failed, why = {ADDED} + old[3], tonumber(old[4]), old[5]
local wrote = false
for i = 3, #ARGV, 2 do
  local index, ending = ARGV[i], ARGV[i + 1]
  local epoch, kind = string.match(ending, '^(%d*)([SF])')
  local number = tonumber(index)
  local before = redis.call('HGET', members, index)
  local old_epoch, old_kind = nil, nil
  if before then
    old_epoch, old_kind = string.match(before, '^(%d*)([SF])')
    old_epoch = tonumber(old_epoch) or 0
  end
  local known = number < {ADDED} and (not size or number < size)
    or (number >= {ADDED} and number < most)
  if known and (not before or (tonumber(epoch) or 0) > old_epoch) then
    redis.call('HSET', members, index, ending)
    wrote = true
    if old_kind == 'F' then
      failed = failed - 1
    end
    if kind == 'F' then
      failed, why = failed + 1, index
    elseif why == index then
      why = ''
    end
  end
end
if wrote then
  redis.call('HSET', record, 'failed', failed, 'why', why)
  local left = redis.call('PTTL', record)
  if left > 0 then
    redis.call('PEXPIRE', members, left)
  end
end
if state == 'failed' then
  if failed > 0 then
    return 'D'
  end
  -- What failed has run again and succeeded: the chord lives on, in an epoch of its own.
  redis.call('HINCRBY', record, 'epoch', 1)
  redis.call('HSET', record, 'state', 'open', 'lease', 0)
  redis.call('PEXPIRE', record, ARGV[2])
  redis.call('PEXPIRE', members, ARGV[2])
  old[6] = 0
end
local verdict
if failed > 0 then
  verdict = 'F'
elseif size and redis.call('HLEN', members) >= size + old[3] then
  verdict = 'R'
else
  return 'W'
end
if tonumber(old[6]) > now then
  return 'B'
end
redis.call('HSET', record, 'lease', string.format('%d', now + ARGV[1]))
return verdict .. redis.call('HINCRBY', record, 'fence', 1)
"""
)

#: ARGV: fence, state, milliseconds to live, spec. Answers 1, or 0 where the fence is another's.
END: Final = Script(
    """
local record, members = KEYS[1], KEYS[2]
local fence = redis.call('HGET', record, 'fence')
if fence ~= ARGV[1] then
  return 0
end
redis.call('HSET', record, 'state', ARGV[2], 'lease', 0)
redis.call('PEXPIRE', record, ARGV[3])
if ARGV[2] == 'fired' then
  redis.call('UNLINK', members)
  redis.call('HSET', record, 'spec', ARGV[4])
else
  redis.call('PEXPIRE', members, ARGV[3])
end
return 1
"""
)
