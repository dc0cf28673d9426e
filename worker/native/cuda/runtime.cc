// Implements device.h with the CUDA runtime: memory, streams, events, graphs, and the library's
// entry point.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <new>

#include "device.h"
#include "exchange.h"
#include "stream.h"

namespace scmoe {

const Backend* cuda_backend();

namespace cuda {
namespace {

cudaEvent_t of(Event* event) {
  return reinterpret_cast<cudaEvent_t>(event);
}
cudaStream_t of(Stream* stream) {
  return device(stream).stream;
}

// Throws std::bad_alloc if memory is short, so that callers can distinguish it from every other
// failure.
void check_memory(cudaError_t status, const char* what) {
  if (status != cudaErrorMemoryAllocation) return check(status, what);
  cudaGetLastError();  // otherwise the next check would report this failure again
  throw std::bad_alloc();
}

int count() {
  int devices = 0;
  check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  return devices;
}

void use(int index) {
  check(cudaSetDevice(index), "cudaSetDevice");
}

void describe(DeviceInfo* info) {
  int index = 0;
  check(cudaGetDevice(&index), "cudaGetDevice");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  std::snprintf(info->name, sizeof info->name, "%s", properties.name);
  info->compute_major = properties.major;
  info->compute_minor = properties.minor;
  info->multiprocessors = properties.multiProcessorCount;
  info->total_bytes = int64_t(total);
  info->free_bytes = int64_t(free);
}

void* allocate(int64_t bytes) {
  void* memory = nullptr;
  const size_t size = size_t(std::max<int64_t>(bytes, 1));
  check_memory(cudaMalloc(&memory, size), "cudaMalloc");
  check(cudaMemset(memory, 0, size), "cudaMemset");
  // Streams that do not block would not wait for the memset.
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  return memory;
}

// Freeing fails on a device that has failed, and nothing can be done about it then.
void release(void* memory) {
  cudaFree(memory);
}

void* allocate_pinned(int64_t bytes) {
  void* memory = nullptr;
  check_memory(cudaHostAlloc(&memory, size_t(std::max<int64_t>(bytes, 1)), cudaHostAllocDefault), "cudaHostAlloc");
  return memory;
}

void release_pinned(void* memory) {
  cudaFreeHost(memory);
}

void copy_now(void* to, const void* from, int64_t bytes) {
  check(cudaMemcpy(to, from, size_t(bytes), cudaMemcpyDefault), "cudaMemcpy");
}

void copy(void* to, const void* from, int64_t bytes, Stream* stream) {
  check(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDefault, of(stream)), "cudaMemcpyAsync");
}

// A stream without the scratch and the cuBLAS handle of ops. It takes only copies and the work of
// other libraries.
Stream* plain_stream_create(bool urgent) {
  int least = 0, greatest = 0;
  check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
  auto* const created = new DeviceStream;
  check(cudaStreamCreateWithPriority(&created->stream, cudaStreamNonBlocking, urgent ? greatest : least),
        "cudaStreamCreateWithPriority");
  return reinterpret_cast<Stream*>(created);
}

void plain_stream_destroy(Stream* stream) {
  cudaStreamDestroy(of(stream));
  delete &device(stream);
}

void* stream_handle(Stream* stream) {
  return of(stream);
}

// A thread that waits for the event sleeps, so the core is free for the other ranks of the pod.
Event* event_create() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventBlockingSync), "cudaEventCreate");
  return reinterpret_cast<Event*>(event);
}

void event_destroy(Event* event) {
  cudaEventDestroy(of(event));
}

void event_record(Event* event, Stream* stream) {
  check(cudaEventRecord(of(event), of(stream)), "cudaEventRecord");
}

// An event that is recorded in a capture only orders the ops of the graph and has no time. An
// external one is recorded at each launch.
void event_stamp(Event* event, Stream* stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(of(stream), &status), "cudaStreamIsCapturing");
  const unsigned flags = status == cudaStreamCaptureStatusActive ? cudaEventRecordExternal : cudaEventRecordDefault;
  check(cudaEventRecordWithFlags(of(event), of(stream), flags), "cudaEventRecord");
}

void stream_wait(Stream* stream, Event* event) {
  check(cudaStreamWaitEvent(of(stream), of(event), 0), "cudaStreamWaitEvent");
}

bool event_done(Event* event) {
  const cudaError_t status = cudaEventQuery(of(event));
  if (status == cudaErrorNotReady) return false;
  check(status, "cudaEventQuery");
  return true;
}

void event_await(Event* event) {
  check(cudaEventSynchronize(of(event)), "cudaEventSynchronize");
}

double event_microseconds(Event* from, Event* to) {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, of(from), of(to)), "cudaEventElapsedTime");
  return 1e3 * double(milliseconds);
}

// Captures only this thread's calls, because another thread may ask for events meanwhile.
void capture_begin(Stream* stream) {
  check(cudaStreamBeginCapture(of(stream), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

Graph* capture_end(Stream* stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(of(stream), &graph), "cudaStreamEndCapture");
  cudaGraphExec_t runnable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&runnable, graph, 0);
  cudaGraphDestroy(graph);
  check_memory(status, "cudaGraphInstantiate");
  return reinterpret_cast<Graph*>(runnable);
}

void graph_launch(Graph* graph, Stream* stream) {
  check(cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(graph), of(stream)), "cudaGraphLaunch");
}

void graph_destroy(Graph* graph) {
  cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(graph));
}

const Device* cuda_device() {
  static const Device kDevice = {
      .abi = kDeviceAbi,
      .backend = cuda_backend(),
      .built_for = "sm_80, sm_90, PTX of compute_90",
      .runtime_version = CUDART_VERSION,
      .count = count,
      .use = use,
      .describe = describe,
      .allocate = allocate,
      .release = release,
      .allocate_pinned = allocate_pinned,
      .release_pinned = release_pinned,
      .copy_now = copy_now,
      .copy = copy,
      .stream_create = plain_stream_create,
      .stream_destroy = plain_stream_destroy,
      .stream_handle = stream_handle,
      .event_create = event_create,
      .event_destroy = event_destroy,
      .event_record = event_record,
      .event_stamp = event_stamp,
      .stream_wait = stream_wait,
      .event_done = event_done,
      .event_await = event_await,
      .event_microseconds = event_microseconds,
      .move_padded = move_padded,
      .capture_begin = capture_begin,
      .capture_end = capture_end,
      .graph_launch = graph_launch,
      .graph_destroy = graph_destroy,
  };
  return &kDevice;
}

}  // namespace
}  // namespace cuda
}  // namespace scmoe

extern "C" __attribute__((visibility("default"))) const scmoe::Device* scmoe_device(int abi) {
  return abi == scmoe::kDeviceAbi ? scmoe::cuda::cuda_device() : nullptr;
}
