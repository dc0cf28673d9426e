// A thread that runs jobs one after another, and leaves signals to the rest of the process.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace scmoe {

class HostThread {
 public:
  explicit HostThread(const char* name);  // at most 15 characters, seen in top -H
  ~HostThread() { join(); }
  HostThread(const HostThread&) = delete;
  HostThread& operator=(const HostThread&) = delete;

  // Jobs must not throw.
  void post(std::function<void()> job);
  // Runs what is left, then ends the thread. Later posts are dropped.
  void join();

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace scmoe
