// What a device library offers beside the ops of its backend: memory, streams and events, behind function pointers.
// Functions act on the device that the calling thread has chosen with `use`, and throw std::runtime_error in the words
// of the device's own runtime; std::bad_alloc where device memory is short.
#pragma once

#include "backend.h"

namespace scmoe {

// Raised with every change of the structures here or in backend.h; both sides are built from one tree.
inline constexpr int kDeviceAbi = 2;

struct Event;
struct Graph;

struct DeviceInfo {
  char name[96];
  int compute_major, compute_minor;
  int multiprocessors;
  int64_t total_bytes, free_bytes;
};

// Routed rows (worker/program/ops.ts) on their way between where they lie without gaps and a buffer in which what one
// rank sends to one expert, of the call's chunk, has `slots` places: an exchange of that needs no counts on the host.
// Before dispatch the buffer is by expert, after it by source rank, then local expert: one part for each peer.
struct PaddedRows {
  void* padded;
  void* rows;
  const int32_t* all_counts;
  int32_t* scratch;    // 2 * experts + 1
  const Attrs* attrs;  // experts, capacity, rank, expertParallelSize, chunk, chunks
  int64_t slots, row_bytes;
  bool by_expert;  // the rows lie as before dispatch
  bool pack;       // to the buffer, not from it; places without a row keep what they hold
};

struct Device {
  int abi;
  const Backend* backend;
  const char* built_for;  // "sm_80, sm_90, PTX compute_90"
  int runtime_version;    // as CUDA counts: 1000 * major + 10 * minor

  int (*count)();
  void (*use)(int device);
  void (*describe)(DeviceInfo* info);  // of the chosen device

  void* (*allocate)(int64_t bytes);         // zeroed, aligned to 256 bytes
  void (*release)(void* memory);            // null: nothing. This and all destroy functions throw nothing
  void* (*allocate_pinned)(int64_t bytes);  // of this process
  void (*release_pinned)(void* memory);
  void (*copy_now)(void* to, const void* from, int64_t bytes);  // either side may be either's; returns when done
  void (*copy)(void* to, const void* from, int64_t bytes, Stream* stream);

  // `urgent`: what is put on it goes before what others wait with. The ops' own stream is Backend::stream_create's.
  Stream* (*stream_create)(bool urgent);
  void (*stream_destroy)(Stream* stream);
  void* (*stream_handle)(Stream* stream);  // what other libraries call the stream; of either kind

  Event* (*event_create)();
  void (*event_destroy)(Event* event);
  void (*event_record)(Event* event, Stream* stream);
  void (*event_stamp)(Event* event, Stream* stream);  // recorded for its time; of a graph: at every launch
  void (*stream_wait)(Stream* stream, Event* event);
  bool (*event_done)(Event* event);
  void (*event_await)(Event* event);
  double (*event_microseconds)(Event* from, Event* to);

  void (*move_padded)(const PaddedRows& move, Stream* stream);  // on a stream of either kind

  // What is put on the stream, and on streams that wait for it, becomes a graph.
  void (*capture_begin)(Stream* stream);
  Graph* (*capture_end)(Stream* stream);
  void (*graph_launch)(Graph* graph, Stream* stream);
  void (*graph_destroy)(Graph* graph);
};

// What the library exports, by its C name; null where it was built for another kDeviceAbi.
using DeviceEntry = const Device* (*)(int abi);
inline constexpr const char* kDeviceEntry = "scmoe_device";

}  // namespace scmoe
