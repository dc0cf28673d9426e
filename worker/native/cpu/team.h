// A fixed team of threads, the caller among them. Between tasks a member spins for some microseconds, then sleeps, so
// that an idle team leaves the cores to others.
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

  // Runs task(context, t) for every t in [0, size), t = 0 on the caller; returns when all are done. One caller at a
  // time; tasks must not throw.
  void run(Task task, void* context);

 private:
  void work(int thread);

  std::vector<std::thread> threads_;
  Task task_ = nullptr;  // written before the epoch moves, read after: the epoch orders them; null ends the team
  void* context_ = nullptr;
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<uint32_t> pending_{0};
};

}  // namespace scmoe
