// Sorts and prefix sums on a GPU, with their scratch memory from a workspace. CUB's are deterministic for integers.
#pragma once

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "launch.cuh"
#include "workspace.h"

namespace equilidar {

inline void check_cuda(cudaError_t error, const char* name) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(error));
}

// Sort pairs stably by keys below 2^bits; the sorted ones are new.
template <typename K, typename V>
void sort_by_key(const K*& keys, const V*& values, int64_t num, int bits, Workspace& workspace, cudaStream_t stream) {
  K* const sorted_keys = workspace.get<K>(num);
  V* const sorted_values = workspace.get<V>(num);
  size_t size = 0;
  check_cuda(cub::DeviceRadixSort::SortPairs(nullptr, size, keys, sorted_keys, values, sorted_values, num, 0, bits, stream),
             "sort");
  check_cuda(cub::DeviceRadixSort::SortPairs(workspace.bytes(static_cast<int64_t>(size)), size, keys, sorted_keys, values,
                                             sorted_values, num, 0, bits, stream),
             "sort");
  keys = sorted_keys;
  values = sorted_values;
}

// In place: each entry becomes the sum of those before it, and of itself where inclusive.
inline void running_sum(int32_t* values, int64_t num, bool inclusive, Workspace& workspace, cudaStream_t stream) {
  size_t size = 0;
  void* scratch = nullptr;
  for (int pass = 0; pass < 2; ++pass) {
    check_cuda(inclusive ? cub::DeviceScan::InclusiveSum(scratch, size, values, values, num, stream)
                         : cub::DeviceScan::ExclusiveSum(scratch, size, values, values, num, stream),
               "running_sum");
    if (pass == 0) scratch = workspace.bytes(static_cast<int64_t>(size));
  }
}

// Read a few numbers from the device; waits for it.
template <typename T>
void read_back(T* host, const T* device, int64_t count, cudaStream_t stream, const char* name) {
  check_cuda(cudaMemcpyAsync(host, device, count * sizeof(T), cudaMemcpyDeviceToHost, stream), name);
  check_cuda(cudaStreamSynchronize(stream), name);
}

}  // namespace equilidar
