// A device library whose device is this machine's processor, for the tests of the device's
// executor. Streams are threads, ops are the CPU's kernels, and device memory is a heap that the
// host side reaches by copies only. No GPU is involved.
#include "device.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "chunk.h"
#include "stream.h"

namespace scmoe::standin {
namespace {

int64_t setting(const char* name, int64_t fallback) {
  const char* const text = std::getenv(name);
  return text == nullptr ? fallback : std::atoll(text);
}

int64_t total_bytes() {
  return setting("STANDIN_MEMORY", int64_t{1} << 31);
}
std::atomic<int64_t> used_bytes{0};

// --- Ops: those of the CPU, run on the stream's thread.

struct OpStream : ThreadStream {
  Stream* kernels = cpu_backend()->stream_create(1);
  ~OpStream() {
    put([this] { cpu_backend()->stream_destroy(kernels); });
  }
};

constexpr size_t kMostOps = 96;
OpEntry ops[kMostOps];

// Whether the environment asks this op to write a byte behind its first output.
bool strays(const char* op) {
  const char* const text = std::getenv("STANDIN_STRAY");
  return text != nullptr && std::strcmp(text, op) == 0;
}

template <size_t kIndex>
void run_op(const OpCall& call, Stream* stream) {
  auto* const own = reinterpret_cast<OpStream*>(stream);
  own->put([call, own] {
    const OpEntry& op = cpu_backend()->ops[kIndex];
    op.run(call, own->kernels);
    if (strays(op.name)) static_cast<char*>(call.out[0])[call.out_elements[0] * int64_t(sizeof(float))] = 1;
  });
}

template <size_t... kIndex>
void fill_ops(std::index_sequence<kIndex...>) {
  const auto fill = [](size_t index, OpFunction run) {
    if (int(index) < cpu_backend()->num_ops) ops[index] = {cpu_backend()->ops[index].name, run};
  };
  (fill(kIndex, run_op<kIndex>), ...);
}

// --- Memory. Each piece begins with its size.

constexpr size_t kHeader = 256;

void* allocate(int64_t bytes) {
  if (used_bytes + bytes > total_bytes()) throw std::bad_alloc();
  auto* const piece = static_cast<char*>(std::aligned_alloc(256, (kHeader + size_t(bytes) + 255) / 256 * 256));
  if (piece == nullptr) throw std::bad_alloc();
  std::memcpy(piece, &bytes, sizeof bytes);
  std::memset(piece + kHeader, 0, size_t(bytes));
  used_bytes += bytes;
  return piece + kHeader;
}

void release(void* memory) {
  if (memory == nullptr) return;
  char* const piece = static_cast<char*>(memory) - kHeader;
  int64_t bytes;
  std::memcpy(&bytes, piece, sizeof bytes);
  used_bytes -= bytes;
  std::free(piece);
}

void describe(DeviceInfo* info) {
  std::snprintf(info->name, sizeof info->name, "stand-in made of threads");
  info->compute_major = int(setting("STANDIN_COMPUTE", 90) / 10);
  info->compute_minor = int(setting("STANDIN_COMPUTE", 90) % 10);
  info->multiprocessors = 1;
  info->total_bytes = total_bytes();
  info->free_bytes = total_bytes() - used_bytes;
}

ThreadStream* of(Stream* stream) {
  return reinterpret_cast<ThreadStream*>(stream);
}
ThreadEvent* of(Event* event) {
  return reinterpret_cast<ThreadEvent*>(event);
}

void copy(void* to, const void* from, int64_t bytes, Stream* stream) {
  of(stream)->put([=] { std::memcpy(to, from, size_t(bytes)); });
}

// Moves row by row, as device.h defines it.
void move_padded(const PaddedRows& x, const Attrs& a) {
  const int64_t size = a.expertParallelSize, local = a.experts / size, first = a.rank / size * size;
  const auto kept = [&](int64_t rank, int64_t expert) {
    return std::min<int64_t>(x.all_counts[rank * a.experts + expert], a.capacity);
  };
  int64_t row = 0;
  const auto segment = [&](int64_t count, int64_t place) {
    const ChunkRange chunk = chunk_range(count, a.chunk, a.chunks);
    char* const packed = static_cast<char*>(x.padded) + place * x.slots * x.row_bytes;
    char* const plain = static_cast<char*>(x.rows) + (row + chunk.first) * x.row_bytes;
    std::memcpy(x.pack ? packed : plain, x.pack ? plain : packed, size_t(chunk.count * x.row_bytes));
    row += count;
  };
  for (int64_t e = 0; x.by_expert && e < a.experts; ++e) segment(kept(a.rank, e), e);
  for (int64_t e = 0; !x.by_expert && e < local; ++e) {
    for (int64_t q = 0; q < size; ++q) segment(kept(first + q, a.rank % size * local + e), q * local + e);
  }
}

// Throws if the environment asks for a fault of this function of CUDA.
void fail_if_told(const char* function) {
  const char* const text = std::getenv("STANDIN_FAULT");
  if (text != nullptr && std::strcmp(text, function) == 0) {
    throw std::runtime_error(std::string(function) + ": unspecified launch failure");
  }
}

void copy_now(void* to, const void* from, int64_t bytes) {
  fail_if_told("cudaMemcpy");
  std::memcpy(to, from, size_t(bytes));
}

bool event_done(Event* event) {
  fail_if_told("cudaEventQuery");
  const std::lock_guard lock(of(event)->mutex);
  return of(event)->done >= of(event)->recorded;
}

void event_await(Event* event) {
  uint64_t count;
  {
    const std::lock_guard lock(of(event)->mutex);
    count = of(event)->recorded;
  }
  of(event)->await(count);
}

void graph_launch(Graph* graph, Stream*) {
  for (const Work& call : reinterpret_cast<ThreadGraph*>(graph)->calls) call();
}

Backend backend = {"standin",
                   ops,
                   0,
                   false,
                   [](int) { return reinterpret_cast<Stream*>(new OpStream); },
                   [](Stream* stream) { delete reinterpret_cast<OpStream*>(stream); }};

Device device = {
    .abi = kDeviceAbi,
    .backend = &backend,
    .built_for = "threads",
    .runtime_version = 12040,
    .count = [] { return int(setting("STANDIN_DEVICES", 1)); },
    .use =
        [](int) {
          if (setting("STANDIN_MUTE", 0) != 0) throw std::runtime_error("cudaSetDevice: no words");
        },
    .describe = describe,
    .allocate = allocate,
    .release = release,
    .allocate_pinned = [](int64_t bytes) { return std::malloc(size_t(bytes)); },
    .release_pinned = [](void* memory) { std::free(memory); },
    .copy_now = copy_now,
    .copy = copy,
    .stream_create = [](bool) { return reinterpret_cast<Stream*>(new ThreadStream); },
    .stream_destroy = [](Stream* stream) { delete of(stream); },
    .stream_handle = [](Stream* stream) -> void* { return of(stream); },
    .event_create = [] { return reinterpret_cast<Event*>(new ThreadEvent); },
    .event_destroy = [](Event* event) { delete of(event); },
    .event_record = [](Event* event, Stream* stream) { of(stream)->record(of(event)); },
    .event_stamp = [](Event* event, Stream* stream) { of(stream)->record(of(event)); },
    .stream_wait = [](Stream* stream, Event* event) { of(stream)->wait(of(event)); },
    .event_done = event_done,
    .event_await = event_await,
    .event_microseconds =
        [](Event* from, Event* to) {
          const std::scoped_lock lock(of(from)->mutex);
          const double begin = of(from)->microseconds;
          return of(to)->microseconds - begin;
        },
    .move_padded = [](const PaddedRows& move,
                      Stream* stream) { of(stream)->put([move, attrs = *move.attrs] { move_padded(move, attrs); }); },
    .capture_begin = [](Stream* stream) { of(stream)->begin_capture(); },
    .capture_end = [](Stream* stream) { return reinterpret_cast<Graph*>(of(stream)->end_capture()); },
    .graph_launch = graph_launch,
    .graph_destroy = [](Graph* graph) { delete reinterpret_cast<ThreadGraph*>(graph); },
};

}  // namespace
}  // namespace scmoe::standin

extern "C" __attribute__((visibility("default"))) const scmoe::Device* scmoe_device(int abi) {
  using namespace scmoe::standin;
  if (setting("STANDIN_ABI", abi) != abi || abi != scmoe::kDeviceAbi) return nullptr;
  backend.num_ops = scmoe::cpu_backend()->num_ops;
  device.runtime_version = int(setting("STANDIN_RUNTIME", device.runtime_version));
  fill_ops(std::make_index_sequence<kMostOps>());
  return &device;
}
