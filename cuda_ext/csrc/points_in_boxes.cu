#include "launch.cuh"
#include "points_in_boxes.h"

namespace equilidar {
namespace {

template <typename T>
__global__ void membership_kernel(const T* points, int64_t num_points, const T* boxes, bool* inside) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= num_points) return;
  inside[blockIdx.y * num_points + i] = contains(prepare_box(boxes + 7 * blockIdx.y), points + 3 * i);
}

}  // namespace

template <typename T>
void membership_cuda(const T* points, int64_t num_points, const T* boxes, int64_t num_boxes, bool* inside, Stream stream) {
  // The grid's second dimension holds at most 65,535 boxes.
  constexpr int64_t kMaxBoxes = 65535;
  for (int64_t first = 0; first < num_boxes && num_points > 0; first += kMaxBoxes) {
    const dim3 grid(blocks_for(num_points), static_cast<unsigned>(min_of(kMaxBoxes, num_boxes - first)));
    membership_kernel<<<grid, kThreads, 0, stream_of(stream)>>>(
        points, num_points, boxes + 7 * first, inside + first * num_points);
    check_launch("membership");
  }
}

template void membership_cuda(const float*, int64_t, const float*, int64_t, bool*, Stream);
template void membership_cuda(const double*, int64_t, const double*, int64_t, bool*, Stream);

}  // namespace equilidar
