"""Addresses of the pages. Names are what templates and redirects use."""

from django.urls import path

from frontend.views import missions, new_mission, sign_in

urlpatterns = [
    path("sign-in/<str:secret>", sign_in.with_link, name="sign-in-link"),
    path("missions", missions.listing, name="missions"),
    path("missions/new", new_mission.new, name="mission-new"),
    path("missions/new/try", new_mission.try_gate, name="mission-try"),
    path("missions/<uuid:mission_id>", missions.detail, name="mission"),
    path("missions/<uuid:mission_id>/resize", missions.resize, name="mission-resize"),
    path("missions/<uuid:mission_id>/do/<str:what>", missions.operate, name="mission-operate"),
    path("missions/<uuid:mission_id>/<str:tab>", missions.detail, name="mission-tab"),
]
