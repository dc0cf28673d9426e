// A stand-in for libnccl.so.2, for the tests of the code that calls NCCL. Ranks are processes of
// one machine; the functions move data over TCP as work of a stand-in stream. As in NCCL, work that
// waits for a peer that is gone waits until it is aborted.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <utility>

#include "device/nccl/library.h"
#include "stream.h"

namespace scmoe::standin {
namespace {

enum Result { kSuccess = 0, kSystemError = 2, kInvalidArgument = 4, kRemoteError = 6, kInProgress = 7 };

struct UniqueId {
  char bytes[128];
};

void set_port(UniqueId& id, uint16_t port) {
  std::memset(id.bytes, 0x5a, sizeof id.bytes);
  std::memcpy(id.bytes, &port, sizeof port);
}

// --- Blocking sockets. Functions return false if the other side is gone.

bool send_all(int socket, const void* data, size_t bytes) {
  for (const char* at = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t sent = send(socket, at, bytes, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    at += sent, bytes -= size_t(sent);
  }
  return true;
}
bool receive_all(int socket, void* data, size_t bytes) {
  for (char* at = static_cast<char*>(data); bytes > 0;) {
    const ssize_t got = recv(socket, at, bytes, 0);
    if (got <= 0) return false;
    at += got, bytes -= size_t(got);
  }
  return true;
}

int listen_anywhere(uint16_t& port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener, 64) != 0) std::abort();
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  port = ntohs(address.sin_port);
  return listener;
}

int dial(uint16_t port) {
  const int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  const int on = 1;
  setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(made, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return made;
  close(made);
  return -1;
}

// --- Communicators.

struct Transfer {
  int peer;
  void* data;  // to receive into; nullptr to send from `from`
  const void* from;
  size_t bytes;
};

struct Comm {
  int rank = 0, size = 1;
  std::vector<int> sockets;  // by rank
  std::atomic<int> state{kInProgress};
  std::atomic<int> polls{0};  // number of polls after a call that still answer "in progress"
  std::mutex mutex;
  std::condition_variable changed;
  bool aborted = false;
  std::thread connecting;

  bool exchange(const std::vector<Transfer>& transfers);
  void hang();
};

// Sends to each peer in order on one thread and receives from it on another, so that no transfer
// waits for another peer.
bool Comm::exchange(const std::vector<Transfer>& transfers) {
  std::atomic<bool> all{true};
  std::vector<std::thread> threads;
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    for (const bool sends : {true, false}) {
      threads.emplace_back([&, peer, sends] {
        for (const Transfer& t : transfers) {
          if (t.peer != peer || sends != (t.data == nullptr)) continue;
          const bool done =
              sends ? send_all(sockets[peer], t.from, t.bytes) : receive_all(sockets[peer], t.data, t.bytes);
          if (!done) all = false;
        }
      });
    }
  }
  for (std::thread& thread : threads) thread.join();
  return all;
}

void Comm::hang() {
  state = kRemoteError;
  std::unique_lock lock(mutex);
  changed.wait(lock, [this] { return aborted; });
}

// Dials the lower ranks and accepts the higher ones, which send their rank first.
bool join_mesh(Comm& comm, int listener, const std::vector<uint16_t>& ports) {
  comm.sockets.assign(size_t(comm.size), -1);
  for (int peer = 0; peer < comm.rank; ++peer) {
    comm.sockets[peer] = dial(ports[peer]);
    if (comm.sockets[peer] < 0 || !send_all(comm.sockets[peer], &comm.rank, sizeof comm.rank)) return false;
  }
  for (int left = comm.size - 1 - comm.rank; left > 0; --left) {
    const int accepted = accept(listener, nullptr, nullptr);
    int peer = -1;
    if (accepted < 0 || !receive_all(accepted, &peer, sizeof peer) || peer < 0 || peer >= comm.size) return false;
    comm.sockets[peer] = accepted;
  }
  close(listener);
  return true;
}

int root_listener = -1;  // belongs to the last id that this process made

// Rank 0 gathers the ports of all ranks on the port of the id and sends the list to each of them.
bool meet(Comm& comm, uint16_t root_port) {
  std::vector<uint16_t> ports(comm.size);
  const int listener = listen_anywhere(ports[comm.rank]);
  const size_t bytes = ports.size() * sizeof ports[0];
  if (comm.rank == 0) {
    std::vector<int> guests;
    for (int left = comm.size - 1; left > 0; --left) {
      const int guest = accept(root_listener, nullptr, nullptr);
      int rank = 0;
      uint16_t port = 0;
      if (!receive_all(guest, &rank, sizeof rank) || !receive_all(guest, &port, sizeof port)) return false;
      ports.at(size_t(rank)) = port;
      guests.push_back(guest);
    }
    for (const int guest : guests) send_all(guest, ports.data(), bytes), close(guest);
    close(std::exchange(root_listener, -1));
  } else {
    const int root = dial(root_port);
    if (root < 0) return false;
    const bool met = send_all(root, &comm.rank, sizeof comm.rank) &&
                     send_all(root, &ports[comm.rank], sizeof ports[0]) && receive_all(root, ports.data(), bytes);
    close(root);
    if (!met) return false;
  }
  return join_mesh(comm, listener, ports);
}

struct SplitWish {
  int color, key, rank;
  uint16_t port;
};

bool split(Comm& parent, Comm& child, SplitWish own, int listener) {
  std::vector<SplitWish> wishes(parent.size);
  wishes[parent.rank] = own;
  std::vector<Transfer> transfers;
  for (int peer = 0; peer < parent.size; ++peer) {
    if (peer == parent.rank) continue;
    transfers.push_back({peer, nullptr, &wishes[parent.rank], sizeof own});
    transfers.push_back({peer, &wishes[peer], nullptr, sizeof own});
  }
  if (!parent.exchange(transfers)) return false;
  std::erase_if(wishes, [&](const SplitWish& wish) { return wish.color != own.color; });
  std::sort(wishes.begin(), wishes.end(), [](const SplitWish& a, const SplitWish& b) { return a.key < b.key; });
  std::vector<uint16_t> ports;
  for (const SplitWish& wish : wishes) {
    if (wish.rank == parent.rank) child.rank = int(ports.size());
    ports.push_back(wish.port);
  }
  child.size = int(ports.size());
  return join_mesh(child, listener, ports);
}

// --- Calls of a group, which run at the end of the group.

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

// Adds in the order of ranks.
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
  uint16_t port = 0;
  root_listener = listen_anywhere(port);
  set_port(*id, port);
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
