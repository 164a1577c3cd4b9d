// Exact Euclidean distance transform of voxel grids and reading of a field at points: see
// equilidar/ops/distance_transform.py.
#pragma once

#include "batch.h"
#include "constants.h"
#include "workspace.h"

namespace equilidar {

// Grids (batch, n[0], n[1], n[2]) along z, y, x; x is contiguous.
struct GridShape {
  int64_t batch, n[3];
};

// The squared distance at place i of a line of squared distances f, after taking in this axis: min over j of
// f[j] + weight * (i - j)^2, at most `cap`. Looks outward until no farther j can win, so it is quick where f is small.
EQL_HD double nearest_along(const float* f, int64_t stride, int64_t n, int64_t i, double weight, double cap) {
  double best = f[i * stride] < cap ? static_cast<double>(f[i * stride]) : cap;
  for (int64_t step = 1; step < n; ++step) {
    const double apart = weight * static_cast<double>(step) * static_cast<double>(step);
    if (apart >= best) break;
    if (i >= step) best = min_of(best, f[(i - step) * stride] + apart);
    if (i + step < n) best = min_of(best, f[(i + step) * stride] + apart);
  }
  return best;
}

// The same for a whole line in linear time, by the lower envelope of parabolas (Felzenszwalb and Huttenlocher, Distance
// transforms of sampled functions, 2012, algorithm 1). `apex` and `from` are scratch of n entries.
EQL_HD void envelope_along(
    const float* f, int64_t n, double weight, double cap, double* out, int32_t* apex, double* from) {
  int64_t last = -1;
  for (int64_t i = 0; i < n; ++i) {
    // A parabola at infinity meets no other one.
    if (!(f[i] < kInfinity<float>)) continue;
    double start = -kInfinity<double>;
    for (; last >= 0; --last) {
      const double j = apex[last], height = static_cast<double>(f[i]) - static_cast<double>(f[apex[last]]);
      start = (height / weight + (static_cast<double>(i) - j) * (static_cast<double>(i) + j)) /
              (2 * (static_cast<double>(i) - j));
      if (start > from[last]) break;
      start = -kInfinity<double>;
    }
    ++last;
    apex[last] = static_cast<int32_t>(i);
    from[last] = start;
  }
  int64_t piece = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (last < 0) {
      out[i] = cap;
      continue;
    }
    while (piece < last && from[piece + 1] < static_cast<double>(i)) ++piece;
    const double apart = static_cast<double>(i) - apex[piece];
    out[i] = min_of(cap, f[apex[piece]] + weight * apart * apart);
  }
}

// Where a point reads a field: the lower of its two cells along each axis (x, y, z), the share of the upper one, and
// whether the point lies between the outermost centers, beyond which the field continues as it is at the border.
template <typename T>
struct FieldPlace {
  int64_t lower[3], upper[3];
  T share[3];
  bool between[3];
};

template <typename T>
struct FieldFrame {
  T low[3], size[3];  // x, y, z
};

template <typename T>
EQL_HD FieldPlace<T> field_place(const T* point, const GridShape& shape, const FieldFrame<T>& frame) {
  FieldPlace<T> place;
  for (int axis = 0; axis < 3; ++axis) {
    const T last = static_cast<T>(shape.n[2 - axis] - 1);
    const T position = (point[axis] - frame.low[axis]) / frame.size[axis] - T(0.5);
    place.between[axis] = position >= 0 && position <= last;
    const T inside = position > 0 ? (position < last ? position : last) : T(0);
    const int64_t cell = static_cast<int64_t>(inside);
    place.lower[axis] = max_of<int64_t>(min_of<int64_t>(cell, shape.n[2 - axis] - 2), 0);
    place.upper[axis] = min_of<int64_t>(place.lower[axis] + 1, shape.n[2 - axis] - 1);
    place.share[axis] = inside - static_cast<T>(place.lower[axis]);
  }
  return place;
}

// Value at one point, and its gradient with respect to the point if `slope` is given. Not a number reads as such.
template <typename T>
EQL_HD T read_field(
    const T* field, const T* point, const GridShape& shape, const FieldFrame<T>& frame, T* slope) {
  for (int axis = 0; slope != nullptr && axis < 3; ++axis) slope[axis] = T(0);
  if (point[0] != point[0] || point[1] != point[1] || point[2] != point[2]) return kNaN<T>;
  const FieldPlace<T> place = field_place(point, shape, frame);
  T value = 0;
  for (int corner = 0; corner < 8; ++corner) {
    T weights[3];
    int64_t cell[3];
    for (int axis = 0; axis < 3; ++axis) {
      const bool upper = corner >> axis & 1;
      cell[axis] = upper ? place.upper[axis] : place.lower[axis];
      weights[axis] = upper ? place.share[axis] : 1 - place.share[axis];
    }
    const T held = field[(cell[2] * shape.n[1] + cell[1]) * shape.n[2] + cell[0]];
    const T weight = weights[0] * weights[1] * weights[2];
    // A corner without weight may be infinite.
    if (weight > 0) value += weight * held;
    for (int axis = 0; slope != nullptr && axis < 3; ++axis) {
      const T others = weights[(axis + 1) % 3] * weights[(axis + 2) % 3];
      if (others > 0 && place.between[axis]) {
        slope[axis] += (corner >> axis & 1 ? others : -others) * held / frame.size[axis];
      }
    }
  }
  return value;
}

// distance is (batch, z, y, x) in metres, at most `max_distance`.
void distance_transform_cpu(
    const bool* occupied, const GridShape& shape, const double* cell_size, double max_distance, float* distance,
    Workspace& workspace);
void distance_transform_cuda(
    const bool* occupied, const GridShape& shape, const double* cell_size, double max_distance, float* distance,
    Workspace& workspace, Stream stream);

template <typename T>
void sample_field_cpu(
    const T* field, const GridShape& shape, const FieldFrame<T>& frame, const T* points, int64_t num,
    const int64_t* offsets, T* values);
template <typename T>
void sample_field_cuda(
    const T* field, const GridShape& shape, const FieldFrame<T>& frame, const T* points, int64_t num,
    const int64_t* offsets, T* values, Stream stream);

// slopes (num, 3): gradients of the values with respect to the points, times grad.
template <typename T>
void sample_field_backward_cpu(
    const T* grad, const T* field, const GridShape& shape, const FieldFrame<T>& frame, const T* points, int64_t num,
    const int64_t* offsets, T* slopes);
template <typename T>
void sample_field_backward_cuda(
    const T* grad, const T* field, const GridShape& shape, const FieldFrame<T>& frame, const T* points, int64_t num,
    const int64_t* offsets, T* slopes, Stream stream);

}  // namespace equilidar
