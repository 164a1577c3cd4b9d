// Bindings of ops on points.
#include "bind/binding.h"
#include "bind/tensor_workspace.h"
#include "neighbors.h"
#include "sampling.h"

namespace equilidar {
namespace {

std::tuple<Tensor, Tensor> k_nearest(
    const Tensor& query, const Tensor& query_offsets, const Tensor& reference, const Tensor& reference_offsets, int64_t k,
    double radius) {
  const Tensor q = query.contiguous(), r = reference.contiguous();
  const Tensor q_offsets = query_offsets.contiguous(), r_offsets = reference_offsets.contiguous();
  Tensor index = at::empty({q.size(0), k}, q_offsets.options());
  Tensor distance = at::empty({q.size(0), k}, q.options());
  TensorWorkspace workspace(q);
  AT_DISPATCH_FLOATING_TYPES(q.scalar_type(), "k_nearest", [&] {
    EQL_RUN(q, k_nearest, q.const_data_ptr<scalar_t>(), q.size(0), q_offsets.const_data_ptr<int64_t>(),
            r.const_data_ptr<scalar_t>(), r.size(0), r_offsets.const_data_ptr<int64_t>(), q_offsets.size(0) - 1, k,
            static_cast<scalar_t>(radius), index.mutable_data_ptr<int64_t>(), distance.mutable_data_ptr<scalar_t>(),
            workspace);
  });
  return {index, distance};
}

Tensor farthest_points(const Tensor& xyz, const Tensor& offsets, int64_t num) {
  const Tensor points = xyz.contiguous(), starts = offsets.contiguous();
  Tensor rows = at::empty({starts.size(0) - 1, num}, starts.options());
  TensorWorkspace workspace(points);
  AT_DISPATCH_FLOATING_TYPES(points.scalar_type(), "farthest_points", [&] {
    EQL_RUN(points, farthest_points, points.const_data_ptr<scalar_t>(), points.size(0), starts.const_data_ptr<int64_t>(),
            rows.size(0), num, rows.mutable_data_ptr<int64_t>(), workspace);
  });
  return rows;
}

}  // namespace

EQL_REGISTER("farthest_points", farthest_points)
EQL_REGISTER("k_nearest", k_nearest)

}  // namespace equilidar
