-- A host asked for peace: it is paused, and afterwards asked more slowly. Returns for how many seconds it is paused.
local age = tonumber(ARGV[2])      -- seconds since the request was sent
local asked = tonumber(ARGV[3])    -- seconds that the host asked to wait; -1: it did not say
local why, random = ARGV[4], tonumber(ARGV[5])

local open = state['until'] ~= nil
local jitter = 1 + 0.1 * random    -- never earlier than the host said
asked = math.min(asked, LONGEST_ASKED) * jitter
if open and now - age < state.paused_at then
    -- Sent before the pause began: it tells nothing new, but what the host asks for counts.
    state['until'] = math.max(state['until'], now + asked)
else
    local pause = open and math.min(2 * state.pause, LONGEST_PAUSE) or asked < 0 and FIRST_PAUSE or 0
    if not open then
        local rate = observed()
        local slow = math.max(SLOWEST, rate / 2)
        state.slow = state.slow and math.min(state.slow, slow) or slow
        state.ceiling = math.max(2 * rate, 2 * SLOWEST)
        state.since = now
    end
    state.pause = math.max(pause, asked)
    state['until'] = now + math.max(pause * jitter, asked)
    state.paused_at, state.why = now, why
    state.prober, state.probe_until = nil, nil
end
save()
return tostring(state['until'] - now)
