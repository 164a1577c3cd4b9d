#include "distance_transform.h"
#include "launch.cuh"

namespace equilidar {
namespace {

__device__ int64_t thread_index() { return blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; }

__global__ void start_kernel(const bool* occupied, int64_t total, float* squared) {
  const int64_t i = thread_index();
  if (i < total) squared[i] = occupied[i] ? 0.0f : kInfinity<float>;
}

// One thread for each cell, neighbours along x side by side: reads along y and z are coalesced.
__global__ void axis_kernel(
    const float* squared, int64_t total, int64_t n, int64_t stride, double weight, double cap, bool root, float* out) {
  const int64_t cell = thread_index();
  if (cell >= total) return;
  const int64_t i = cell / stride % n;
  const double best = nearest_along(squared + (cell - i * stride), stride, n, i, weight, cap);
  out[cell] = static_cast<float>(root ? sqrt(best) : best);
}

template <typename T>
__global__ void sample_kernel(
    const T* grad, const T* field, GridShape shape, FieldFrame<T> frame, const T* points, int64_t num,
    const int64_t* offsets, T* values, T* slopes) {
  const int64_t i = thread_index();
  if (i >= num) return;
  const T* const own = field + item_of(i, offsets, shape.batch) * shape.n[0] * shape.n[1] * shape.n[2];
  const T value = read_field(own, points + 3 * i, shape, frame, slopes == nullptr ? nullptr : slopes + 3 * i);
  if (values != nullptr) values[i] = value;
  for (int axis = 0; slopes != nullptr && axis < 3; ++axis) slopes[3 * i + axis] *= grad[i];
}

}  // namespace

void distance_transform_cuda(
    const bool* occupied, const GridShape& shape, const double* cell_size, double max_distance, float* distance,
    Workspace& workspace, Stream stream) {
  const int64_t z = shape.n[0], y = shape.n[1], x = shape.n[2], total = shape.batch * z * y * x;
  if (total == 0) return;
  const double cap = max_distance * max_distance;
  float* const other = workspace.get<float>(total);
  const cudaStream_t on = stream_of(stream);
  const unsigned blocks = blocks_for(total);
  start_kernel<<<blocks, kThreads, 0, on>>>(occupied, total, other);
  axis_kernel<<<blocks, kThreads, 0, on>>>(other, total, x, 1, cell_size[0] * cell_size[0], cap, false, distance);
  axis_kernel<<<blocks, kThreads, 0, on>>>(distance, total, y, x, cell_size[1] * cell_size[1], cap, false, other);
  axis_kernel<<<blocks, kThreads, 0, on>>>(other, total, z, y * x, cell_size[2] * cell_size[2], cap, true, distance);
  check_launch("distance_transform");
}

template <typename T>
void sample_field_cuda(
    const T* field, const GridShape& shape, const FieldFrame<T>& frame, const T* points, int64_t num,
    const int64_t* offsets, T* values, Stream stream) {
  if (num == 0) return;
  sample_kernel<T><<<blocks_for(num), kThreads, 0, stream_of(stream)>>>(
      nullptr, field, shape, frame, points, num, offsets, values, nullptr);
  check_launch("sample_field");
}

template <typename T>
void sample_field_backward_cuda(
    const T* grad, const T* field, const GridShape& shape, const FieldFrame<T>& frame, const T* points, int64_t num,
    const int64_t* offsets, T* slopes, Stream stream) {
  if (num == 0) return;
  sample_kernel<T><<<blocks_for(num), kThreads, 0, stream_of(stream)>>>(
      grad, field, shape, frame, points, num, offsets, nullptr, slopes);
  check_launch("sample_field_backward");
}

#define EQL_INSTANTIATE(T)                                                                                        \
  template void sample_field_cuda(                                                                               \
      const T*, const GridShape&, const FieldFrame<T>&, const T*, int64_t, const int64_t*, T*, Stream);          \
  template void sample_field_backward_cuda(                                                                      \
      const T*, const T*, const GridShape&, const FieldFrame<T>&, const T*, int64_t, const int64_t*, T*, Stream);

EQL_INSTANTIATE(float)
EQL_INSTANTIATE(double)

}  // namespace equilidar
