// The two regions every buffer lives in.
#pragma once

#include <cstdint>

namespace scmoe {

// Bytes this process may still take: the smaller of the machine's and the control group's free memory.
int64_t available_memory();

// Throws OUT_OF_MEMORY, with what is needed and what there is, if `bytes` cannot be had. Pages are taken when first
// touched, so this is asked before: an error beats the kernel's OOM kill.
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
  // Bytes promised but not yet taken.
  int64_t untouched_bytes() const;

 private:
  char* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace scmoe
