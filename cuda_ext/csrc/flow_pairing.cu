#include "device_sort.h"
#include "flow_pairing.h"
#include "launch.cuh"

namespace equilidar {
namespace {

__device__ int64_t thread_index() { return blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; }

template <typename T>
__global__ void warp_kernel(
    const T* source, const T* flow, const bool* valid, const T* linear, const T* translation, Pairing<T> pairing,
    T* warped) {
  const int64_t i = thread_index();
  if (i >= pairing.num_sources) return;
  const int64_t item = item_of(i, pairing.source_offsets, pairing.num_items);
  warp_point(source + 3 * i, flow + 3 * i, valid[i], linear + 9 * item, translation + 3 * item, warped + 3 * i);
}

template <typename T>
__global__ void mutual_kernel(PointTree<T> tree, const T* warped, Pairing<T> pairing, int64_t* match) {
  const int64_t i = thread_index();
  if (i >= pairing.num_sources || match[i] < 0) return;
  const int64_t* const offsets = pairing.source_offsets;
  const int64_t item = item_of(i, offsets, pairing.num_items);
  const T* const target = pairing.target + 3 * match[i];
  if (!is_mutual(tree, warped + 3 * i, i, target, offsets[item], offsets[item + 1])) match[i] = -1;
}

__global__ void voxels_kernel(
    const int64_t* match, int64_t num, const int64_t* source_voxels, const int64_t* target_voxels, int64_t* voxels) {
  const int64_t i = thread_index();
  if (i >= num) return;
  voxels[2 * i] = match[i] < 0 ? -1 : source_voxels[i];
  voxels[2 * i + 1] = match[i] < 0 ? -1 : target_voxels[match[i]];
}

// Row, then cell; ~0 for what is unknown.
__global__ void move_keys_kernel(
    const int64_t* rows, const int64_t* cells, const float* weights, int64_t num, int64_t num_rows, int64_t num_cells,
    uint64_t* keys) {
  const int64_t i = thread_index();
  if (i >= num) return;
  const bool known = rows[i] >= 0 && rows[i] < num_rows && cells[i] >= 0 && cells[i] < num_cells &&
                     (weights == nullptr || weights[i] > 0);
  keys[i] = known ? static_cast<uint64_t>(rows[i]) * num_cells + cells[i] : ~0ULL;
}

__global__ void distinct_kernel(
    SortedRows sorted, const float* weights, int64_t num, int64_t num_cells, int64_t* distinct_rows,
    int64_t* distinct_cells, float* sums) {
  const int64_t i = thread_index();
  if (i >= num) return;
  const uint64_t key = sorted.keys[i];
  const bool first = key != ~0ULL && (i == 0 || sorted.keys[i - 1] != key);
  distinct_rows[i] = first ? static_cast<int64_t>(key / num_cells) : -1;
  distinct_cells[i] = first ? static_cast<int64_t>(key % num_cells) : -1;
  float sum = 0;
  for (int64_t j = i; first && j < num && sorted.keys[j] == key; ++j) sum += weights[sorted.rows[j]];
  sums[i] = sum;
}

template <typename T>
__global__ void scatter_sum_kernel(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const T* weights, Segments segments, int64_t num_cells,
    T* out) {
  const int64_t i = thread_index();
  if (i >= num_cells * channels) return;
  const int64_t cell = i / channels, c = i % channels;
  scatter_sum_cell(features, num_features, channels, rows, weights, segments.order, segments.starts[cell], segments.starts[cell + 1],
                   c, c + 1, out + cell * channels);
}

template <typename T>
__global__ void scatter_max_kernel(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, Segments segments, int64_t num_cells, T* out,
    int64_t* origin) {
  const int64_t i = thread_index();
  if (i >= num_cells * channels) return;
  const int64_t cell = i / channels, c = i % channels;
  scatter_max_cell(features, num_features, channels, rows, segments.order, segments.starts[cell], segments.starts[cell + 1], c, c + 1,
                   out + cell * channels, origin + cell * channels);
}

// One thread for each row and channel goes through the row's moves; equal ones stand together and count once.
template <typename T>
__global__ void scatter_max_backward_kernel(
    const T* grad, const int64_t* origin, int64_t channels, const uint64_t* keys, int64_t num, int64_t num_cells,
    int64_t num_rows, T* out) {
  const int64_t i = thread_index();
  if (i >= num_rows * channels) return;
  const int64_t row = i / channels, c = i % channels;
  const uint64_t begin = static_cast<uint64_t>(row) * num_cells, end = begin + num_cells;
  int64_t low = 0, high = num;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (keys[middle] < begin) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  T sum = 0;
  for (int64_t place = low; place < num && keys[place] < end; ++place) {
    if (place > low && keys[place] == keys[place - 1]) continue;
    const int64_t entry = static_cast<int64_t>(keys[place] - begin) * channels + c;
    if (origin[entry] == row) sum += grad[entry];
  }
  out[i] = sum;
}

}  // namespace

template <typename T>
void match_cuda(const T* warped, const Pairing<T>& pairing, int64_t* match, Workspace& workspace, Stream stream) {
  if (pairing.num_sources == 0) return;
  k_nearest_cuda(warped, pairing.num_sources, pairing.source_offsets, pairing.target, pairing.num_targets,
                 pairing.target_offsets, pairing.num_items, int64_t{1}, pairing.radius, match,
                 workspace.get<T>(pairing.num_sources), workspace, stream);
  if (!pairing.mutual) return;
  const PointTree<T> tree =
      build_tree_cuda(warped, pairing.num_sources, pairing.source_offsets, pairing.num_items, workspace, stream);
  mutual_kernel<<<blocks_for(pairing.num_sources, 128), 128, 0, stream_of(stream)>>>(tree, warped, pairing, match);
  check_launch("match");
}

template <typename T>
void flow_pairing_cuda(
    const T* source, const T* flow, const bool* valid, const T* linear, const T* translation, const Pairing<T>& pairing,
    const int64_t* source_voxels, const int64_t* target_voxels, T* warped, int64_t* match, int64_t* voxels,
    Workspace& workspace, Stream stream) {
  const int64_t num = pairing.num_sources;
  if (num == 0) return;
  warp_kernel<<<blocks_for(num), kThreads, 0, stream_of(stream)>>>(
      source, flow, valid, linear, translation, pairing, warped);
  match_cuda(warped, pairing, match, workspace, stream);
  voxels_kernel<<<blocks_for(num), kThreads, 0, stream_of(stream)>>>(match, num, source_voxels, target_voxels, voxels);
  check_launch("flow_pairing");
}

void distinct_moves_cuda(
    const int64_t* rows, const int64_t* cells, const float* weights, int64_t num, int64_t num_rows, int64_t num_cells,
    int64_t* distinct_rows, int64_t* distinct_cells, float* sums, Workspace& workspace, Stream stream) {
  if (num == 0) return;
  uint64_t* const keys = workspace.get<uint64_t>(num);
  const cudaStream_t on = stream_of(stream);
  move_keys_kernel<<<blocks_for(num), kThreads, 0, on>>>(rows, cells, weights, num, num_rows, num_cells, keys);
  const SortedRows sorted = sort_rows_cuda(keys, num, workspace, stream);
  distinct_kernel<<<blocks_for(num), kThreads, 0, on>>>(
      sorted, weights, num, max_of<int64_t>(num_cells, 1), distinct_rows, distinct_cells, sums);
  check_launch("distinct_moves");
}

template <typename T>
void scatter_sum_cuda(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const int64_t* cells,
    const T* weights, int64_t num, int64_t num_cells, T* out, Workspace& workspace, Stream stream) {
  if (num_cells * channels == 0) return;
  const Segments segments = segments_cuda(cells, num, num_cells, workspace, stream);
  scatter_sum_kernel<<<blocks_for(num_cells * channels), kThreads, 0, stream_of(stream)>>>(
      features, num_features, channels, rows, weights, segments, num_cells, out);
  check_launch("scatter_sum");
}

template <typename T>
void scatter_max_cuda(
    const T* features, int64_t num_features, int64_t channels, const int64_t* rows, const int64_t* cells, int64_t num,
    int64_t num_cells, T* out, int64_t* origin, Workspace& workspace, Stream stream) {
  if (num_cells * channels == 0) return;
  const Segments segments = segments_cuda(cells, num, num_cells, workspace, stream);
  scatter_max_kernel<<<blocks_for(num_cells * channels), kThreads, 0, stream_of(stream)>>>(
      features, num_features, channels, rows, segments, num_cells, out, origin);
  check_launch("scatter_max");
}

template <typename T>
void scatter_max_backward_cuda(
    const T* grad, const int64_t* origin, int64_t channels, const int64_t* rows, const int64_t* cells, int64_t num,
    int64_t num_cells, int64_t num_rows, T* out, Workspace& workspace, Stream stream) {
  if (num_rows * channels == 0) return;
  uint64_t* const keys = workspace.get<uint64_t>(num);
  const cudaStream_t on = stream_of(stream);
  if (num > 0) {
    move_keys_kernel<<<blocks_for(num), kThreads, 0, on>>>(rows, cells, nullptr, num, num_rows, num_cells, keys);
  }
  const SortedRows sorted = sort_rows_cuda(keys, num, workspace, stream);
  scatter_max_backward_kernel<<<blocks_for(num_rows * channels), kThreads, 0, on>>>(
      grad, origin, channels, sorted.keys, num, num_cells, num_rows, out);
  check_launch("scatter_max_backward");
}

#define EQL_INSTANTIATE(T)                                                                                            \
  template void match_cuda(const T*, const Pairing<T>&, int64_t*, Workspace&, Stream);                               \
  template void flow_pairing_cuda(                                                                                   \
      const T*, const T*, const bool*, const T*, const T*, const Pairing<T>&, const int64_t*, const int64_t*, T*,    \
      int64_t*, int64_t*, Workspace&, Stream);                                                                       \
  template void scatter_sum_cuda(                                                                                    \
      const T*, int64_t, int64_t, const int64_t*, const int64_t*, const T*, int64_t, int64_t, T*, Workspace&, Stream);        \
  template void scatter_max_cuda(                                                                                    \
      const T*, int64_t, int64_t, const int64_t*, const int64_t*, int64_t, int64_t, T*, int64_t*, Workspace&, Stream);        \
  template void scatter_max_backward_cuda(                                                                           \
      const T*, const int64_t*, int64_t, const int64_t*, const int64_t*, int64_t, int64_t, int64_t, T*, Workspace&,  \
      Stream);

EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar
