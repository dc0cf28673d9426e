// The communicators of the stand-in for NCCL: ranks that are processes of one machine, connected by
// TCP.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace scmoe::standin {

enum Result { kSuccess = 0, kSystemError = 2, kInvalidArgument = 4, kRemoteError = 6, kInProgress = 7 };

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

  // Returns false if a peer is gone.
  bool exchange(const std::vector<Transfer>& transfers);
  // Waits until the communicator is aborted.
  void hang();
};

// Listens for the ranks that will use an id, and returns the port, which is the id's content.
uint16_t open_root();

// Connects all ranks of the communicator by the port of the id. Returns false if a rank is gone.
bool meet(Comm& comm, uint16_t root_port);

// The data that a rank tells the others for a split.
struct SplitWish {
  int color, key, rank;
  uint16_t port;
};

// A listening socket on any free port of this machine.
int listen_anywhere(uint16_t& port);

// Connects the ranks of `parent` that have the same color, in the order of their keys. `listener`
// listens on own.port. Returns false if a rank is gone.
bool split(Comm& parent, Comm& child, SplitWish own, int listener);

}  // namespace scmoe::standin
