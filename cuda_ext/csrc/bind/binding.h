// What binding files share. They alone know PyTorch: they check nothing that Python has checked, allocate the outputs, and
// call the kernel of the device. One file for each family of ops, since the headers take most of the compile time.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "portable.h"

#if defined(EQUILIDAR_WITH_CUDA)
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace equilidar {

using at::Tensor;

// Call x_cuda(..., stream) for tensors on a GPU and x_cpu(...) for others.
#if defined(EQUILIDAR_WITH_CUDA)
#define EQL_RUN(tensor, name, ...)                                                             \
  do {                                                                                         \
    if ((tensor).is_cuda()) {                                                                  \
      const c10::cuda::CUDAGuard guard((tensor).device());                                     \
      name##_cuda(__VA_ARGS__, static_cast<Stream>(c10::cuda::getCurrentCUDAStream().stream())); \
    } else {                                                                                   \
      name##_cpu(__VA_ARGS__);                                                                 \
    }                                                                                          \
  } while (false)
#else
#define EQL_RUN(tensor, name, ...) name##_cpu(__VA_ARGS__)
#endif

// Register one function for CPU tensors and, in a CUDA build, for CUDA tensors. Python owns the schema.
#if defined(EQUILIDAR_WITH_CUDA)
#define EQL_REGISTER(name, function)                                          \
  TORCH_LIBRARY_IMPL(equilidar, CPU, m) { m.impl(name, TORCH_FN(function)); } \
  TORCH_LIBRARY_IMPL(equilidar, CUDA, m) { m.impl(name, TORCH_FN(function)); }
#else
#define EQL_REGISTER(name, function) \
  TORCH_LIBRARY_IMPL(equilidar, CPU, m) { m.impl(name, TORCH_FN(function)); }
#endif

}  // namespace equilidar
