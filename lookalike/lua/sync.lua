-- A worker says what it has under way at a host and what waits there, gives back what it did not use, and is told what it
-- may do until it asks again: how many requests at once, how many to begin, or for how long the host is left in peace.
local worker = ARGV[2]
local under_way = tonumber(ARGV[3])   -- images of this worker that are being fetched from the host
local waiting = tonumber(ARGV[4])     -- images that wait and for which it has threads
local wanted = tonumber(ARGV[5])      -- requests that these need
local least = tonumber(ARGV[6])       -- requests that the first of these needs
local unspent = tonumber(ARGV[7])     -- requests that it was allowed and did not begin; negative: it began more
local begun = tonumber(ARGV[8])       -- requests that it has begun since it asked last
local probing = tonumber(ARGV[9])     -- 1: it holds the permission to try a paused host
local rate = tonumber(ARGV[10])       -- limits; 0: none
local concurrency = tonumber(ARGV[11])
local lifetime = tonumber(ARGV[12])   -- what it holds is free again when it has not asked for so long
local random = tonumber(ARGV[13])     -- 0..1, since scripts have no chance of their own

count(begun)

-- What the others hold and want. Those that fell silent hold nothing.
local demand, held_by_others, workers = under_way + waiting, 0, 1
local demands = {demand}
local entries = redis.call('HGETALL', HOLDERS)
for i = 1, #entries, 2 do
    local held, wants, expires = string.match(entries[i + 1], '^(%S+) (%S+) %S+ (%S+)$')
    if tonumber(expires) <= now then
        redis.call('HDEL', HOLDERS, entries[i])
    elseif entries[i] ~= worker then
        held_by_others = held_by_others + tonumber(held)
        workers = workers + 1
        demands[#demands + 1] = tonumber(wants)
    end
end

-- An equal part for each; what somebody does not need goes to the others. Parts of a request go round by chance.
local allowed = -1
if concurrency > 0 then
    table.sort(demands)
    local left, level = concurrency, math.huge
    for i, wants in ipairs(demands) do
        local part = left / (#demands - i + 1)
        if wants > part then
            level = part
            break
        end
        left = left - wants
    end
    local share = math.min(demand, math.floor(level) + ((level % 1 > random) and 1 or 0))
    allowed = math.max(0, math.min(share, concurrency - held_by_others))
end

-- A paused host is tried by one image when its time is over; whoever may try says so until it knows more.
local pause, probe, open = 0, 0, state['until'] ~= nil
if open then
    pause = math.max(0, state['until'] - now)
    if state.prober == worker then
        state.prober, state.probe_until = nil, nil
        probe = probing
    elseif state.probe_until and state.probe_until <= now then
        state.prober, state.probe_until = nil, nil
    end
    if pause == 0 and not state.prober and (probe == 1 or waiting > 0) then
        probe, state.prober, state.probe_until = 1, worker, now + lifetime
    end
    allowed = under_way + (probing == 0 and probe or 0)
elseif state.slow then
    state.slow = state.slow * GROWTH ^ math.min(now - state.grown, 1)
    state.grown = now
    if state.slow >= state.ceiling or (rate > 0 and state.slow >= rate) then
        state.slow, state.ceiling, state.grown, state.why, state.since = nil, nil, nil, nil, nil
    end
end

-- The generic cell rate algorithm: `tat` is when the host will have been asked no more than its rate allows.
local current, tokens, wait = effective(rate), -1, 0
if current > 0 then
    local tat = state.tat or now
    if unspent > 0 then
        tat = math.max(tat - unspent / current, now)
    else
        tat = math.max(tat, now) - unspent / current
    end
    tokens = 0
    if not open and wanted > 0 then
        local burst = math.max(BURST, least / current)
        local free = math.floor((now + burst - tat) * current + 1e-6)
        local part = math.max(least, math.floor(free / workers))
        tokens = math.min(wanted, free, part, math.max(least, math.ceil(current / 2)))
        tokens = tokens < least and 0 or tokens
        tat = tat + tokens / current
        wait = math.max(0, tat + least / current - burst - now)
    end
    state.tat = tat
end

local held = math.max(under_way, allowed)
if held + demand > 0 then
    redis.call('HSET', HOLDERS, worker,
        string.format('%d %d %d %.17g', held, demand, under_way, now + lifetime))
    redis.call('EXPIRE', HOLDERS, KEPT)
else
    redis.call('HDEL', HOLDERS, worker)
end
save()
return {allowed, tokens, tostring(wait), tostring(pause), open and 1 or 0, probe, tostring(current), workers,
    state.why or ''}
