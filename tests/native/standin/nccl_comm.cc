#include "nccl_comm.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace scmoe::standin {
namespace {

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

}  // namespace

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

uint16_t open_root() {
  uint16_t port = 0;
  root_listener = listen_anywhere(port);
  return port;
}

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

}  // namespace scmoe::standin
