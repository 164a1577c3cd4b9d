// Scratch memory of CUDA ops, whose amount the launcher knows and PyTorch's allocator holds.
#pragma once

#include <cstdint>

namespace equilidar {

class Workspace {
 public:
  virtual ~Workspace() = default;
  // Device memory, aligned to 256 bytes, that lives as long as the workspace.
  virtual void* bytes(int64_t size) = 0;

  template <typename T>
  T* get(int64_t count) {
    return static_cast<T*>(bytes(count * static_cast<int64_t>(sizeof(T))));
  }
};

}  // namespace equilidar
