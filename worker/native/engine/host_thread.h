// A thread that runs jobs one after another and handles no signals.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace scmoe {

class HostThread {
 public:
  explicit HostThread(const char* name);  // at most 15 characters; top -H shows it
  ~HostThread() { join(); }
  HostThread(const HostThread&) = delete;
  HostThread& operator=(const HostThread&) = delete;

  // Jobs must not throw.
  void post(std::function<void()> job);
  // Runs the jobs that are left, then ends the thread. Jobs posted later are dropped.
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
