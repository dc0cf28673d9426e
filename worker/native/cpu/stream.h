// A CPU stream as kernels see it. Nothing here is inline: kernel files are compiled for several instruction sets, and
// an inline function shared between them could end up in the binary with instructions this machine lacks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend.h"

namespace scmoe {

int stream_threads(Stream* stream);

// Runs task(context, t) for every thread t of the team; returns when all are done.
void stream_run(Stream* stream, void (*task)(void* context, int thread), void* context);

// Memory of one thread (or, with thread = kShared, of the whole op), 64-byte aligned, contents undefined. The same
// memory at every call: it grows on first use, never in steady state. A thread asks only for its own; kShared only
// outside stream_run.
inline constexpr int kShared = -1;
void* stream_scratch(Stream* stream, int thread, size_t bytes);

Stream* cpu_stream_create(int num_threads);
void cpu_stream_destroy(Stream* stream);

}  // namespace scmoe
