#include "launch.cuh"
#include "move_points.h"

namespace equilidar {
namespace {

template <typename T>
__global__ void move_points_kernel(
    const T* points, int64_t num, const int64_t* offsets, int64_t num_items, const T* linear, const T* translation,
    GridFrame<T> grid, T* moved, bool* inside) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num) return;
  const int64_t item = item_of(i, offsets, num_items);
  inside[i] = move_point(points + 3 * i, linear + 9 * item, translation + 3 * item, grid, moved + 3 * i);
}

}  // namespace

template <typename T>
void move_points_cuda(
    const T* points, int64_t num, const int64_t* offsets, int64_t num_items, const T* linear, const T* translation,
    const GridFrame<T>& grid, T* moved, bool* inside, Stream stream) {
  if (num == 0) return;
  move_points_kernel<<<blocks_for(num), kThreads, 0, stream_of(stream)>>>(
      points, num, offsets, num_items, linear, translation, grid, moved, inside);
  check_launch("move_points");
}

template void move_points_cuda(
    const float*, int64_t, const int64_t*, int64_t, const float*, const float*, const GridFrame<float>&, float*, bool*,
    Stream);
template void move_points_cuda(
    const double*, int64_t, const int64_t*, int64_t, const double*, const double*, const GridFrame<double>&, double*,
    bool*, Stream);

}  // namespace equilidar
