// Lets other threads wake the communication thread, which sleeps in poll(2) on its sockets.
#pragma once

#include <atomic>

namespace scmoe {

class Interrupt {
 public:
  Interrupt();
  ~Interrupt() { close(); }
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Closes the descriptor; nothing may ring or wait afterwards.
  void close();

  // Wakes one poll.
  void ring();
  // Makes everything that the communication thread does from now on fail with ABORTED.
  void raise();
  bool raised() const { return raised_.load(); }
  // Throws ABORTED if raised.
  void check() const;

  // Readable after ring(), until drained.
  int fd() const { return fd_; }
  void drain();

 private:
  std::atomic<bool> raised_{false};
  int fd_;
};

}  // namespace scmoe
