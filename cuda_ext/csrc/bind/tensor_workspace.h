// The kernels' workspace as tensors, in use on the current stream alone.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <vector>

#include "portable.h"
#include "workspace.h"

namespace equilidar {

class TensorWorkspace final : public Workspace {
 public:
  explicit TensorWorkspace(const at::Tensor& like) : options_(like.options().dtype(at::kByte)) {}

  void* bytes(int64_t size) override {
    // Never null: CUB takes that for the question how much it needs.
    return held_.emplace_back(at::empty({max_of<int64_t>(size, 1)}, options_)).mutable_data_ptr();
  }

 private:
  at::TensorOptions options_;
  std::vector<at::Tensor> held_;
};

}  // namespace equilidar
