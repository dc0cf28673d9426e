// The two memory regions of all buffers: persistent buffers keep their contents, transient buffers
// live within one run.
#pragma once

#include <cstdint>
#include <memory>

namespace scmoe {

// Bytes that this process can still allocate: the smaller of the machine's and the control group's
// free memory.
int64_t available_memory();

// Throws OUT_OF_MEMORY, with the bytes needed and available, if `bytes` are not available. It is
// called before an allocation, because pages are taken only when they are first touched and the
// kernel would then kill the process instead of reporting an error.
void require_memory(int64_t bytes);

// A zeroed, page-aligned region.
class Arena {
 public:
  explicit Arena(int64_t bytes);  // throws OUT_OF_MEMORY if the address space is short
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  // Bytes of pages that nothing has touched yet.
  int64_t untouched_bytes() const;

 private:
  char* data_ = nullptr;
  int64_t bytes_ = 0;
};

// The memory of all loaded programs. They share one transient region, because only one program runs
// at a time.
class Memory {
 public:
  virtual ~Memory() = default;

  // Bytes that can still be allocated.
  virtual int64_t available() const = 0;
  // Makes room for a program of this size. The first program determines the size of the persistent
  // region. Throws OUT_OF_MEMORY, with the bytes needed and available and what to change, and then
  // changes nothing.
  virtual void make_room(int64_t persistent_bytes, int64_t transient_bytes) = 0;
  // -1 before the first make_room.
  virtual int64_t persistent_bytes() const = 0;

  // The addresses of the regions for ops.
  virtual char* persistent() const = 0;
  virtual char* transient() const = 0;

  // The memory through which this process reads and writes persistent buffers, at the same offsets.
  // Empty before the first make_room.
  virtual std::shared_ptr<Arena> host() const = 0;
  // Copies a part of the persistent region from host() to the memory of ops, and back.
  virtual void upload(int64_t offset, int64_t bytes) = 0;
  virtual void download(int64_t offset, int64_t bytes) = 0;

  // Frees everything except memory that a view still holds.
  virtual void release() = 0;
};

// Memory of this process, in which ops run too: upload and download have nothing to copy.
class HostMemory final : public Memory {
 public:
  int64_t available() const override { return available_memory(); }
  void make_room(int64_t persistent_bytes, int64_t transient_bytes) override;
  int64_t persistent_bytes() const override { return persistent_ ? persistent_->bytes() : -1; }
  char* persistent() const override { return persistent_->data(); }
  char* transient() const override { return transient_->data(); }
  std::shared_ptr<Arena> host() const override { return persistent_; }
  void upload(int64_t, int64_t) override {}
  void download(int64_t, int64_t) override {}
  void release() override { persistent_.reset(), transient_.reset(); }

 private:
  std::shared_ptr<Arena> persistent_;
  std::unique_ptr<Arena> transient_;
};

}  // namespace scmoe
