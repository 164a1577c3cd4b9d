// Which points lie in which oriented boxes: see equilidar/ops/points_in_boxes.py.
#pragma once

#include "portable.h"

namespace equilidar {

// A box with what does not depend on the point computed once.
template <typename T>
struct PreparedBox {
  T x, y, z, half_length, half_width, half_height, cos_yaw, sin_yaw;
};

// Rows are x, y, z, length, width, height, yaw.
template <typename T>
EQL_HD PreparedBox<T> prepare_box(const T* box) {
  return {box[0], box[1], box[2], box[3] / 2, box[4] / 2, box[5] / 2, std::cos(box[6]), std::sin(box[6])};
}

// Faces count as inside; not a number is in no box.
template <typename T>
EQL_HD bool contains(const PreparedBox<T>& box, const T* point) {
  const T dx = point[0] - box.x, dy = point[1] - box.y, dz = point[2] - box.z;
  const T along = dx * box.cos_yaw + dy * box.sin_yaw, across = dy * box.cos_yaw - dx * box.sin_yaw;
  return std::abs(along) <= box.half_length && std::abs(across) <= box.half_width && std::abs(dz) <= box.half_height;
}

// inside is (num_boxes, num_points).
template <typename T>
void membership_cpu(const T* points, int64_t num_points, const T* boxes, int64_t num_boxes, bool* inside);
template <typename T>
void membership_cuda(const T* points, int64_t num_points, const T* boxes, int64_t num_boxes, bool* inside, Stream stream);

}  // namespace equilidar
