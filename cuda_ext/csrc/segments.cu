#include "device_sort.h"
#include "launch.cuh"
#include "segments.h"

namespace equilidar {
namespace {

__global__ void keys_kernel(const int64_t* rows, int64_t num, int64_t num_rows, uint64_t* keys) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < num) keys[i] = rows[i] >= 0 && rows[i] < num_rows ? static_cast<uint64_t>(rows[i]) : ~0ULL;
}

__global__ void starts_kernel(const uint64_t* keys, int64_t num, int64_t num_rows, int64_t* starts) {
  const int64_t row = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (row > num_rows) return;
  int64_t low = 0, high = num;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] < static_cast<uint64_t>(row)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  starts[row] = low;
}

}  // namespace

Segments segments_cuda(const int64_t* rows, int64_t num, int64_t num_rows, Workspace& workspace, Stream stream) {
  uint64_t* const keys = workspace.get<uint64_t>(num);
  int64_t* const starts = workspace.get<int64_t>(num_rows + 1);
  if (num > 0) keys_kernel<<<blocks_for(num), kThreads, 0, stream_of(stream)>>>(rows, num, num_rows, keys);
  const SortedRows sorted = sort_rows_cuda(keys, num, workspace, stream);
  starts_kernel<<<blocks_for(num_rows + 1), kThreads, 0, stream_of(stream)>>>(sorted.keys, num, num_rows, starts);
  check_launch("segments");
  return {sorted.rows, starts};
}

}  // namespace equilidar
