#include "cpu/stream.h"

#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "cpu/team.h"

namespace scmoe {
namespace {

struct alignas(64) Scratch {
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory;
  size_t bytes = 0;
};

}  // namespace

struct Stream {
  explicit Stream(int num_threads) : team(num_threads), scratch(static_cast<size_t>(num_threads) + 1) {}
  Team team;
  std::vector<Scratch> scratch;  // [1 + num_threads]: the shared one first
};

int stream_threads(Stream* stream) {
  return stream->team.size();
}

void stream_run(Stream* stream, void (*task)(void*, int), void* context) {
  stream->team.run(task, context);
}

void* stream_scratch(Stream* stream, int thread, size_t bytes) {
  Scratch& scratch = stream->scratch[static_cast<size_t>(thread + 1)];
  if (scratch.bytes < bytes) {
    const size_t rounded = (bytes + bytes / 4 + 4095) / 4096 * 4096;
    scratch.bytes = 0;
    scratch.memory.reset(std::aligned_alloc(64, rounded));
    if (!scratch.memory) throw std::bad_alloc();
    scratch.bytes = rounded;
  }
  return scratch.memory.get();
}

Stream* cpu_stream_create(int num_threads) {
  return new Stream(num_threads);
}

void cpu_stream_destroy(Stream* stream) {
  delete stream;
}

}  // namespace scmoe
