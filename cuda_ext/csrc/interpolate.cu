#include "interpolate.h"
#include "launch.cuh"

namespace equilidar {
namespace {

// One thread for each row and channel: neighbouring threads read neighbouring channels.
template <typename T>
__global__ void gather_kernel(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const T* weights, int64_t num,
    int64_t k, T* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num * channels) return;
  const int64_t row = i / channels, c = i % channels;
  gather_row(features, num_features, channels, rows + row * k, weights + row * k, k, c, c + 1, out + row * channels);
}

template <typename T>
__global__ void spread_kernel(
    const T* grad, int64_t channels, Segments segments, const T* weights, int64_t k, int64_t num_rows, T* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num_rows * channels) return;
  const int64_t row = i / channels, c = i % channels;
  spread_row(grad, channels, segments.order, segments.starts[row], segments.starts[row + 1], weights, k, c, c + 1,
             out + row * channels);
}

__global__ void clear_kernel(CellTable table) {
  const uint64_t slot = blockIdx.x * static_cast<uint64_t>(blockDim.x) + threadIdx.x;
  if (slot > table.mask) return;
  table.keys[slot] = kNoCell;
  table.rows[slot] = kLargest<int64_t>;
}

__global__ void insert_kernel(const int32_t* coords, int64_t num, CellLimits limits, CellTable table) {
  const int64_t row = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (row >= num) return;
  const uint64_t key = cell_key(coords + 4 * row, limits);
  if (key == kNoCell) return;
  for (uint64_t slot = first_slot(key, table.mask);; slot = (slot + 1) & table.mask) {
    using Word = unsigned long long;
    const uint64_t held = atomicCAS(reinterpret_cast<Word*>(table.keys + slot), Word{kNoCell}, Word{key});
    if (held != kNoCell && held != key) continue;
    // Integers: the lowest row stays, whoever comes first.
    atomicMin(reinterpret_cast<long long*>(table.rows + slot), static_cast<long long>(row));
    return;
  }
}

template <typename I>
__global__ void find_kernel(const I* cells, int64_t num, CellLimits limits, CellTable table, int64_t* rows) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < num) rows[i] = find_row(table, cell_key(cells + 4 * i, limits));
}

}  // namespace

template <typename T>
void gather_weighted_cuda(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const T* weights, int64_t num,
    int64_t k, T* out,
    Stream stream) {
  if (num * channels == 0) return;
  gather_kernel<<<blocks_for(num * channels), kThreads, 0, stream_of(stream)>>>(
      features, num_features, channels, rows, weights, num, k, out);
  check_launch("gather_weighted");
}

template <typename T>
void spread_weighted_cuda(
    const T* grad, int64_t channels, const int64_t* rows, const T* weights, int64_t num, int64_t k, int64_t num_rows,
    T* out, Workspace& workspace, Stream stream) {
  if (num_rows * channels == 0) return;
  const Segments segments = segments_cuda(rows, num * k, num_rows, workspace, stream);
  spread_kernel<<<blocks_for(num_rows * channels), kThreads, 0, stream_of(stream)>>>(
      grad, channels, segments, weights, k, num_rows, out);
  check_launch("spread_weighted");
}

CellTable build_table_cuda(
    const int32_t* coords, int64_t num, CellLimits limits, Workspace& workspace, Stream stream) {
  const uint64_t slots = table_slots(num);
  const int64_t count = static_cast<int64_t>(slots);
  const CellTable table{workspace.get<uint64_t>(count), workspace.get<int64_t>(count), slots - 1};
  const cudaStream_t on = stream_of(stream);
  clear_kernel<<<blocks_for(count), kThreads, 0, on>>>(table);
  if (num > 0) insert_kernel<<<blocks_for(num), kThreads, 0, on>>>(coords, num, limits, table);
  check_launch("build_table");
  return table;
}

template <typename I>
void find_cells_cuda(
    const int32_t* coords, int64_t num_coords, const I* cells, int64_t num, CellLimits limits, int64_t* rows,
    Workspace& workspace, Stream stream) {
  if (num == 0) return;
  const CellTable table = build_table_cuda(coords, num_coords, limits, workspace, stream);
  find_kernel<<<blocks_for(num), kThreads, 0, stream_of(stream)>>>(cells, num, limits, table, rows);
  check_launch("find_cells");
}

template void gather_weighted_cuda(
    const float*, int64_t, int64_t, const int64_t*, const float*, int64_t, int64_t, float*, Stream);
template void gather_weighted_cuda(
    const double*, int64_t, int64_t, const int64_t*, const double*, int64_t, int64_t, double*, Stream);
template void spread_weighted_cuda(
    const float*, int64_t, const int64_t*, const float*, int64_t, int64_t, int64_t, float*, Workspace&, Stream);
template void spread_weighted_cuda(
    const double*, int64_t, const int64_t*, const double*, int64_t, int64_t, int64_t, double*, Workspace&, Stream);
template void find_cells_cuda(
    const int32_t*, int64_t, const int32_t*, int64_t, CellLimits, int64_t*, Workspace&, Stream);
template void find_cells_cuda(
    const int32_t*, int64_t, const int64_t*, int64_t, CellLimits, int64_t*, Workspace&, Stream);

}  // namespace equilidar
