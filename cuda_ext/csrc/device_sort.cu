#include "device_sort.h"

#include <cub/device/device_radix_sort.cuh>

#include "launch.cuh"

namespace equilidar {
namespace {

__global__ void number_kernel(uint32_t* rows, int64_t num) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < num) rows[i] = static_cast<uint32_t>(i);
}

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("sort_rows: ") + cudaGetErrorString(error));
}

}  // namespace

SortedRows sort_rows_cuda(const uint64_t* keys, int64_t num, Workspace& workspace, Stream stream) {
  uint32_t* const rows = workspace.get<uint32_t>(num);
  uint32_t* const sorted_rows = workspace.get<uint32_t>(num);
  uint64_t* const sorted_keys = workspace.get<uint64_t>(num);
  if (num == 0) return {sorted_keys, sorted_rows};
  const cudaStream_t on = stream_of(stream);
  number_kernel<<<blocks_for(num), kThreads, 0, on>>>(rows, num);
  check_launch("sort_rows");
  std::size_t size = 0;
  check(cub::DeviceRadixSort::SortPairs(nullptr, size, keys, sorted_keys, rows, sorted_rows, num, 0, 64, on));
  void* const scratch = workspace.bytes(static_cast<int64_t>(size));
  check(cub::DeviceRadixSort::SortPairs(scratch, size, keys, sorted_keys, rows, sorted_rows, num, 0, 64, on));
  return {sorted_keys, sorted_rows};
}

}  // namespace equilidar
