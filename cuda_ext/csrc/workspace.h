// Scratch memory for kernels, from PyTorch's allocator but without its headers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace equilidar {

// What a kernel asks for lives until its call returns (on CUDA: until the stream is past it, as the caching allocator
// reuses memory in stream order).
class Workspace {
 public:
  virtual ~Workspace() = default;
  virtual void* bytes(std::size_t size) = 0;

  template <typename T>
  T* array(int64_t length) {
    return static_cast<T*>(bytes(static_cast<std::size_t>(length) * sizeof(T)));
  }
};

}  // namespace equilidar
