// The interface of a device library: its backend, and functions for memory, streams and events.
// Functions act on the device that the calling thread has chosen with `use`. They throw
// std::runtime_error with the message of the device's own runtime, or std::bad_alloc if device
// memory is short.
#pragma once

#include "backend.h"

namespace scmoe {

// Incremented with every change of the structures here or in backend.h. The engine and the library
// are built from one tree.
inline constexpr int kDeviceAbi = 2;

struct Event;
struct Graph;

struct DeviceInfo {
  char name[96];
  int compute_major, compute_minor;
  int multiprocessors;
  int64_t total_bytes, free_bytes;
};

// A move of routed rows (worker/program/ops.ts) between their place without gaps and a padded
// buffer. In the padded buffer, the rows that one rank sends to one expert in the call's chunk have
// `slots` places, so the host can exchange the buffer without knowing counts. Before dispatch the
// buffer is ordered by expert, after it by source rank, then local expert: one part for each peer.
struct PaddedRows {
  void* padded;
  void* rows;
  const int32_t* all_counts;
  int32_t* scratch;    // 2 * experts + 1 elements
  const Attrs* attrs;  // experts, capacity, rank, expertParallelSize, chunk, chunks
  int64_t slots, row_bytes;
  bool by_expert;  // the rows are ordered as before dispatch
  bool pack;       // to the padded buffer, not from it; places without a row are left as they are
};

struct Device {
  int abi;
  const Backend* backend;
  const char* built_for;  // "sm_80, sm_90, PTX compute_90"
  int runtime_version;    // of CUDA: 1000 * major + 10 * minor

  int (*count)();
  void (*use)(int device);
  void (*describe)(DeviceInfo* info);  // the chosen device

  void* (*allocate)(int64_t bytes);         // zeroed, aligned to 256 bytes
  void (*release)(void* memory);            // may be null. No release or destroy function throws
  void* (*allocate_pinned)(int64_t bytes);  // memory of this process
  void (*release_pinned)(void* memory);
  // Returns when the copy is done. Both addresses may be of this process or of the device.
  void (*copy_now)(void* to, const void* from, int64_t bytes);
  void (*copy)(void* to, const void* from, int64_t bytes, Stream* stream);

  // Work on an `urgent` stream goes before work that waits on other streams. The stream for ops
  // comes from Backend::stream_create.
  Stream* (*stream_create)(bool urgent);
  void (*stream_destroy)(Stream* stream);
  void* (*stream_handle)(Stream* stream);  // for other libraries; of streams of both kinds

  Event* (*event_create)();
  void (*event_destroy)(Event* event);
  void (*event_record)(Event* event, Stream* stream);
  void (*event_stamp)(Event* event, Stream* stream);  // for its time; in a graph, at every launch
  void (*stream_wait)(Stream* stream, Event* event);
  bool (*event_done)(Event* event);
  void (*event_await)(Event* event);
  double (*event_microseconds)(Event* from, Event* to);

  void (*move_padded)(const PaddedRows& move, Stream* stream);  // on streams of both kinds

  // Between the two calls, work put on the stream and on streams that wait for it becomes a graph.
  void (*capture_begin)(Stream* stream);
  Graph* (*capture_end)(Stream* stream);
  void (*graph_launch)(Graph* graph, Stream* stream);
  void (*graph_destroy)(Graph* graph);
};

// The function that the library exports under the name below. It returns null if the library was
// built for another kDeviceAbi.
using DeviceEntry = const Device* (*)(int abi);
inline constexpr const char* kDeviceEntry = "scmoe_device";

}  // namespace scmoe
