#include "launch.cuh"
#include "neighbors.h"

namespace equilidar {
namespace {

template <typename T>
__global__ void k_nearest_kernel(
    PointTree<T> tree, const T* query, int64_t num_queries, const int64_t* query_offsets,
    const int64_t* reference_offsets, int64_t num_items, int64_t k, T radius, int64_t* index, T* distance) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num_queries) return;
  const int64_t item = item_of(i, query_offsets, num_items);
  nearest_rows(
      tree, query + 3 * i, reference_offsets[item], reference_offsets[item + 1], k, radius,
      kInfinity<T>, index + i * k, distance + i * k);
}

}  // namespace

template <typename T>
void k_nearest_cuda(
    const T* query, int64_t num_queries, const int64_t* query_offsets, const T* reference, int64_t num_references,
    const int64_t* reference_offsets, int64_t num_items, int64_t k, T radius, int64_t* index, T* distance,
    Workspace& workspace, Stream stream) {
  if (num_queries == 0) return;
  const PointTree<T> tree =
      build_tree_cuda(reference, num_references, reference_offsets, num_items, workspace, stream);
  k_nearest_kernel<<<blocks_for(num_queries, 128), 128, 0, stream_of(stream)>>>(
      tree, query, num_queries, query_offsets, reference_offsets, num_items, k, radius, index, distance);
  check_launch("k_nearest");
}

template void k_nearest_cuda(
    const float*, int64_t, const int64_t*, const float*, int64_t, const int64_t*, int64_t, int64_t, float, int64_t*,
    float*, Workspace&, Stream);
template void k_nearest_cuda(
    const double*, int64_t, const int64_t*, const double*, int64_t, const int64_t*, int64_t, int64_t, double, int64_t*,
    double*, Workspace&, Stream);

}  // namespace equilidar
