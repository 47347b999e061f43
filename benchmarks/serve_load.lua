-- A load of `wrk`: images of a folder in turns. Tells counts and latencies as one line of JSON.
local images, threads, next_image = {}, {}, 0

function setup(thread)
  table.insert(threads, thread)
end

function init(arguments)
  answered, refused, others = 0, 0, 0
  for number = 0, tonumber(arguments[2]) - 1 do
    local file = assert(io.open(arguments[1] .. "/" .. number .. ".png", "rb"))
    images[number] = wrk.format("POST", "/predict", { ["content-type"] = "image/png" }, file:read("*a"))
    file:close()
  end
end

function request()
  next_image = (next_image + 1) % (#images + 1)
  return images[next_image]
end

function response(status)
  if status == 200 then answered = answered + 1 elseif status == 429 then refused = refused + 1 else others = others + 1 end
end

function done(summary, latency)
  local counts = { answered = 0, refused = 0, others = 0 }
  for _, thread in ipairs(threads) do
    for name in pairs(counts) do counts[name] = counts[name] + thread:get(name) end
  end
  local errors = summary.errors
  print(string.format(
    '{"seconds": %.6f, "answered": %d, "refused": %d, "others": %d, "broken": %d, "p50": %.6f, "p95": %.6f, "p99": %.6f}',
    summary.duration / 1e6, counts.answered, counts.refused, counts.others,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e6, latency:percentile(95) / 1e6, latency:percentile(99) / 1e6))
end
