#include "engine/host_thread.h"

#include <pthread.h>
#include <signal.h>

namespace scmoe {

HostThread::HostThread(const char* name) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // the new thread and its own threads inherit it
  thread_ = std::thread([this] { loop(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread_.native_handle(), name);
}

void HostThread::post(std::function<void()> job) {
  const std::lock_guard lock(mutex_);
  if (ending_) return;
  jobs_.push_back(std::move(job));
  changed_.notify_one();
}

void HostThread::join() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void HostThread::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    const std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    lock.lock();
  }
}

}  // namespace scmoe
