// A stand-in for libnccl.so.2, for the tests of the code that calls NCCL. Ranks are processes of
// one machine; the functions move data over TCP as work of a stand-in stream. As in NCCL, work that
// waits for a peer that is gone waits until it is aborted.
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>

#include "device/nccl/library.h"
#include "nccl_comm.h"
#include "stream.h"

namespace scmoe::standin {
namespace {

struct UniqueId {
  char bytes[128];
};

void set_port(UniqueId& id, uint16_t port) {
  std::memset(id.bytes, 0x5a, sizeof id.bytes);
  std::memcpy(id.bytes, &port, sizeof port);
}

// --- The calls of a group run when the group ends.

struct Pending {
  Comm* comm;
  ThreadStream* stream;
  std::function<bool()> work;
  std::vector<Transfer> transfers;
};
thread_local int depth = 0;
thread_local std::vector<Pending> pending;

size_t bytes_of(int type) {
  return type == 0 ? 1 : type == 9 ? 2 : 4;
}

void put(Comm* comm, ThreadStream* stream, std::function<bool()> work) {
  comm->polls = 2;
  const auto guarded = [comm, work = std::move(work)] {
    {
      const std::lock_guard lock(comm->mutex);
      if (comm->aborted) return;
    }
    if (!work()) comm->hang();
  };
  if (stream == nullptr) return guarded();  // a stream that runs everything at once
  stream->put(guarded);
}

Result end_group() {
  if (--depth > 0) return kSuccess;
  // The sends and receives of a group form one exchange.
  std::vector<Pending> calls = std::exchange(pending, {});
  Pending together{};
  for (Pending& call : calls) {
    if (call.work) {
      put(call.comm, call.stream, std::move(call.work));
      continue;
    }
    together.comm = call.comm, together.stream = call.stream;
    together.transfers.insert(together.transfers.end(), call.transfers.begin(), call.transfers.end());
  }
  if (!together.transfers.empty()) {
    put(together.comm, together.stream,
        [comm = together.comm, transfers = std::move(together.transfers)] { return comm->exchange(transfers); });
  }
  return kInProgress;
}

Result call(Pending one) {
  if (one.comm == nullptr || one.comm->state != kSuccess) return kInvalidArgument;
  ++depth;
  pending.push_back(std::move(one));
  return end_group();
}

bool gather(Comm& comm, const void* from, void* to, size_t bytes) {
  char* const all = static_cast<char*>(to);
  std::memmove(all + size_t(comm.rank) * bytes, from, bytes);
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < comm.size; ++peer) {
    if (peer == comm.rank) continue;
    transfers.push_back({peer, nullptr, all + size_t(comm.rank) * bytes, bytes});
    transfers.push_back({peer, all + size_t(peer) * bytes, nullptr, bytes});
  }
  return comm.exchange(transfers);
}

// The sum is made in the order of ranks.
bool reduce(Comm& comm, const float* from, float* to, size_t count) {
  std::vector<float> all(count * size_t(comm.size));
  if (!gather(comm, from, all.data(), count * sizeof(float))) return false;
  for (size_t i = 0; i < count; ++i) {
    float sum = all[i];
    for (int rank = 1; rank < comm.size; ++rank) sum += all[size_t(rank) * count + i];
    to[i] = sum;
  }
  return true;
}

}  // namespace
}  // namespace scmoe::standin

using namespace scmoe::standin;

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT const char* ncclGetErrorString(int result) {
  return result == kRemoteError ? "remote process exited or there was a network error" : "unhandled system error";
}
EXPORT int ncclGetVersion(int* version) {
  const char* const text = std::getenv("STANDIN_NCCL");
  *version = text == nullptr ? 22705 : std::atoi(text);
  return kSuccess;
}
EXPORT int ncclGetUniqueId(UniqueId* id) {
  set_port(*id, open_root());
  return kSuccess;
}

EXPORT int ncclCommInitRankConfig(Comm** comm, int size, UniqueId id, int rank, scmoe::nccl::Config* config) {
  if (std::getenv("STANDIN_NCCL_SAYS") != nullptr)
    std::fprintf(stderr, "standin NCCL: at most %d CTAs, policy %d\n", config->max_ctas, config->cta_policy);
  uint16_t port = 0;
  std::memcpy(&port, id.bytes, sizeof port);
  Comm* const made = *comm = new Comm;
  made->rank = rank, made->size = size;
  made->connecting = std::thread([made, port] { made->state = meet(*made, port) ? kSuccess : kSystemError; });
  return kInProgress;
}

EXPORT int ncclCommSplit(Comm* parent, int color, int key, Comm** comm, void*) {
  Comm* const made = *comm = new Comm;
  SplitWish own{color, key, parent->rank, 0};
  const int listener = listen_anywhere(own.port);
  made->connecting = std::thread([=] { made->state = split(*parent, *made, own, listener) ? kSuccess : kSystemError; });
  return kInProgress;
}

EXPORT int ncclCommGetAsyncError(Comm* comm, int* state) {
  *state = comm->state == kSuccess && comm->polls > 0 ? (--comm->polls, kInProgress) : comm->state.load();
  return kSuccess;
}

// Does not free the communicator, because work that waits on a stream still reads it.
EXPORT int ncclCommAbort(Comm* comm) {
  for (const int socket : comm->sockets) shutdown(socket, SHUT_RDWR);
  {
    const std::lock_guard lock(comm->mutex);
    comm->aborted = true;
    comm->changed.notify_all();
  }
  if (comm->connecting.joinable()) comm->connecting.detach();
  return kSuccess;
}

EXPORT int ncclGroupStart() {
  ++depth;
  return kSuccess;
}
EXPORT int ncclGroupEnd() {
  return end_group();
}

EXPORT int ncclSend(const void* from, size_t count, int type, int peer, Comm* comm, ThreadStream* stream) {
  return call({comm, stream, {}, {{peer, nullptr, from, count * bytes_of(type)}}});
}
EXPORT int ncclRecv(void* to, size_t count, int type, int peer, Comm* comm, ThreadStream* stream) {
  return call({comm, stream, {}, {{peer, to, nullptr, count * bytes_of(type)}}});
}
EXPORT int ncclAllGather(const void* from, void* to, size_t count, int type, Comm* comm, ThreadStream* stream) {
  return call({comm, stream, [=] { return gather(*comm, from, to, count * bytes_of(type)); }, {}});
}
EXPORT int ncclAllReduce(const void* from, void* to, size_t count, int, int, Comm* comm, ThreadStream* stream) {
  return call({comm,
               stream,
               [=] { return reduce(*comm, static_cast<const float*>(from), static_cast<float*>(to), count); },
               {}});
}
EXPORT int ncclAlltoAll(const void* from, void* to, size_t count, int type, Comm* comm, ThreadStream* stream) {
  const size_t bytes = count * bytes_of(type);
  const auto work = [=] {
    std::vector<Transfer> transfers;
    for (int peer = 0; peer < comm->size; ++peer) {
      const char* const out = static_cast<const char*>(from) + size_t(peer) * bytes;
      char* const in = static_cast<char*>(to) + size_t(peer) * bytes;
      if (peer == comm->rank) {
        std::memcpy(in, out, bytes);
        continue;
      }
      transfers.push_back({peer, nullptr, out, bytes});
      transfers.push_back({peer, in, nullptr, bytes});
    }
    return comm->exchange(transfers);
  };
  return call({comm, stream, work, {}});
}
