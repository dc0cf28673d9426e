// A fixed team of threads, with the caller as one of them. Between tasks a thread spins for some
// microseconds and then sleeps, so that an idle team leaves the cores to others.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace scmoe {

class Team {
 public:
  using Task = void (*)(void* context, int thread);

  explicit Team(int num_threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const;

  // Runs task(context, t) for every t in [0, size), with t = 0 on the caller's thread, and returns
  // when all are done. Only one caller at a time may call it. Tasks must not throw.
  void run(Task task, void* context);

 private:
  void work(int thread);

  std::vector<std::thread> threads_;
  // Written before the epoch is increased and read after, so the epoch orders both. Null ends the
  // team.
  Task task_ = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<uint32_t> pending_{0};
};

}  // namespace scmoe
